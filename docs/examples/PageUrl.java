// Makes the URL of notifier's front-channel page. JDK 17 or newer, nothing else:
//   PAGE_KEY=$(head -1 web.keys) java PageUrl.java https://login.example.com/connect/notify ISS SID CLIENT…
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.zip.Deflater;
import java.util.zip.DeflaterOutputStream;
import javax.crypto.Cipher;
import javax.crypto.Mac;
import javax.crypto.spec.IvParameterSpec;
import javax.crypto.spec.SecretKeySpec;

public final class PageUrl {
    private PageUrl() {}

    /**
     * {@code base} and {@code iss} are those of {@code web.issuers}; {@code sid} may be null. {@code clients}: each id
     * with the sid of its own, if it knows one, else null.
     *
     * @throws IllegalArgumentException if there are too many clients for one URL
     */
    public static String pageUrl(String base, String key, String iss, String sid, Map<String, String> clients)
            throws GeneralSecurityException, IOException {
        byte[] secret = Base64.getUrlDecoder().decode(key);
        if (secret.length != 32) {
            throw new IllegalArgumentException("the key must be 32 bytes as base64url");
        }
        StringBuilder json = new StringBuilder("[").append(quoted(iss)).append(',').append(quoted(sid));
        clients.forEach((id, own) -> json.append(',')
                .append(own == null ? quoted(id) : "[" + quoted(id) + "," + quoted(own) + "]"));
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

    public static void main(String[] arguments) throws Exception {
        Map<String, String> clients = new LinkedHashMap<>();
        for (String client : Arrays.asList(arguments).subList(3, arguments.length)) {
            String[] parts = client.split("=", 2);
            clients.put(parts[0], parts.length > 1 ? parts[1] : null);
        }
        String sid = arguments[2].isEmpty() ? null : arguments[2];
        System.out.println(pageUrl(arguments[0], System.getenv("PAGE_KEY"), arguments[1], sid, clients));
    }
}
