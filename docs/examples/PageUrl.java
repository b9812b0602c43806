// Makes the URL of notifier's front-channel page. JDK 17 or newer, nothing else:
//   PAGE_KEY=$(head -1 web.keys) java PageUrl.java https://login.example.com/connect/notify ISS SID CLIENT…
// A CLIENT is ID, ID=SID, ID=SID=required=URI or ID=SID=optional=URI.
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.zip.Deflater;
import java.util.zip.DeflaterOutputStream;
import javax.crypto.Cipher;
import javax.crypto.Mac;
import javax.crypto.spec.IvParameterSpec;
import javax.crypto.spec.SecretKeySpec;

public final class PageUrl {
    private PageUrl() {}

    /**
     * A client, with the sid of its own if it knows one, else null. {@code uri}: its frontchannel_logout_uri, if
     * notifier's registry may not have it, with a key of this issuer alone; {@code required}: whether it needs a sid.
     */
    public record Client(String id, String sid, String uri, boolean required) {
        private String json() {
            if (uri != null) {
                return "[" + quoted(id) + "," + quoted(sid) + "," + quoted(uri) + "," + required + "]";
            }
            return sid == null ? quoted(id) : "[" + quoted(id) + "," + quoted(sid) + "]";
        }
    }

    /**
     * {@code base} and {@code iss} are those of {@code web.issuers}; {@code sid} may be null.
     *
     * @throws IllegalArgumentException if there are too many clients for one URL
     */
    public static String pageUrl(String base, String key, String iss, String sid, List<Client> clients)
            throws GeneralSecurityException, IOException {
        byte[] secret = Base64.getUrlDecoder().decode(key);
        if (secret.length != 32) {
            throw new IllegalArgumentException("the key must be 32 bytes as base64url");
        }
        StringBuilder json = new StringBuilder("[").append(quoted(iss)).append(',').append(quoted(sid));
        clients.forEach(client -> json.append(',').append(client.json()));
        ByteArrayOutputStream plain = new ByteArrayOutputStream();
        try (DeflaterOutputStream deflating = new DeflaterOutputStream(plain, new Deflater(9))) {
            deflating.write(json.append(']').toString().getBytes(StandardCharsets.UTF_8));
        }
        byte[] iv = new byte[16];
        new SecureRandom().nextBytes(iv);
        Cipher cipher = Cipher.getInstance("AES/CBC/PKCS5Padding");
        cipher.init(Cipher.ENCRYPT_MODE, new SecretKeySpec(secret, 16, 16, "AES"), new IvParameterSpec(iv));
        byte[] encrypted = cipher.doFinal(plain.toByteArray());
        // Fernet: version, seconds since 1970, IV, what is encrypted, and the MAC of all that
        ByteBuffer token = ByteBuffer.allocate(25 + encrypted.length + 32);
        token.put((byte) 0x80).putLong(System.currentTimeMillis() / 1000).put(iv).put(encrypted);
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(secret, 0, 16, "HmacSHA256"));
        token.put(mac.doFinal(Arrays.copyOf(token.array(), token.position())));
        String context = Base64.getUrlEncoder().withoutPadding().encodeToString(token.array());
        if (context.length() > 7500) {
            throw new IllegalArgumentException("too many clients for one page");
        }
        return base + "/front-channel/" + context;
    }

    private static String quoted(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder json = new StringBuilder("\"");
        for (char sign : text.toCharArray()) {
            if (sign == '"' || sign == '\\') {
                json.append('\\').append(sign);
            } else if (sign < ' ') {
                json.append(String.format("\\u%04x", (int) sign));
            } else {
                json.append(sign);
            }
        }
        return json.append('"').toString();
    }

    private static Client client(String written) {
        String[] parts = written.split("=", 4);
        String own = parts.length < 2 || parts[1].isEmpty() ? null : parts[1];
        return new Client(parts[0], own, parts.length > 3 ? parts[3] : null, parts.length > 3 && parts[2].equals("required"));
    }

    public static void main(String[] arguments) throws Exception {
        List<Client> clients = Arrays.stream(arguments).skip(3).map(PageUrl::client).toList();
        String sid = arguments[2].isEmpty() ? null : arguments[2];
        System.out.println(pageUrl(arguments[0], System.getenv("PAGE_KEY"), arguments[1], sid, clients));
    }
}
