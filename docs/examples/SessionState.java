import java.net.IDN;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.Locale;

public final class SessionState {
    /** The session_state of an authentication response (Session Management 1.0, section 2), with a new salt. */
    public static String create(String clientId, String redirectUri, String browserState) {
        byte[] salt = new byte[16];
        new SecureRandom().nextBytes(salt);
        return create(clientId, redirectUri, browserState, HexFormat.of().formatHex(salt));
    }

    static String create(String clientId, String redirectUri, String browserState, String salt) {
        String text = String.join(" ", clientId, origin(redirectUri), browserState, salt);
        try {
            byte[] hash = MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8));
            return HexFormat.of().formatHex(hash) + "." + salt;
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException(e); // each Java has SHA-256
        }
    }

    /** As browsers write it. */
    private static String origin(String uri) {
        URI parts = URI.create(uri);
        String authority = parts.getRawAuthority(); // getHost() knows neither names with other letters nor with "_"
        int colon = authority.endsWith("]") ? -1 : authority.lastIndexOf(':');
        String host = colon < 0 ? authority : authority.substring(0, colon);
        String port = colon < 0 ? "" : authority.substring(colon + 1);
        String scheme = parts.getScheme().toLowerCase(Locale.ROOT);
        String ascii = (host.startsWith("[") ? host : IDN.toASCII(host)).toLowerCase(Locale.ROOT);
        boolean usual = port.isEmpty() || port.equals(scheme.equals("https") ? "443" : "80");
        return scheme + "://" + ascii + (usual ? "" : ":" + port);
    }
}
