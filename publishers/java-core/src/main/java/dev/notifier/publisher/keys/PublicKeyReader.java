package dev.notifier.publisher.keys;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayInputStream;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.security.AlgorithmParameters;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.cert.CertificateFactory;
import java.security.interfaces.ECPublicKey;
import java.security.interfaces.EdECPublicKey;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.ECParameterSpec;
import java.security.spec.ECPoint;
import java.security.spec.ECPublicKeySpec;
import java.security.spec.InvalidKeySpecException;
import java.security.spec.RSAPublicKeySpec;
import java.security.spec.X509EncodedKeySpec;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Reads public RSA, EC, Ed25519 and Ed448 keys from a JWK Set, a JWK, or one public key or certificate in PEM. Refuses private and symmetric keys. */
public final class PublicKeyReader {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Set<String> PRIVATE_MEMBERS = Set.of("d", "p", "q", "dp", "dq", "qi", "oth", "k");
    private static final Map<Integer, String> CURVES = Map.of(256, "P-256", 384, "P-384", 521, "P-521");
    private static final Map<String, String> ALGORITHMS = Map.of("RSA", "RS256", "P-256", "ES256", "P-384", "ES384", "P-521", "ES512", "OKP", "EdDSA");

    private static final Map<String, String> JCA_CURVES = Map.of("P-256", "secp256r1", "P-384", "secp384r1", "P-521", "secp521r1");

    /** The bytes before the key in its SubjectPublicKeyInfo (RFC 8410). */
    private static final Map<String, String> OKP_DER = Map.of("Ed25519", "302a300506032b6570032100", "Ed448", "3043300506032b6571033a00");

    private PublicKeyReader() {
    }

    /**
     * Reads one or more keys.
     *
     * @param kid the key ID of a key that does not contain one, such as a PEM key; may be null
     * @param algorithm the algorithm of a key that does not contain one; if null, it is derived from the key
     */
    public static List<PublicJwk> read(String text, String kid, String algorithm) throws InvalidKeysException {
        String stripped = text.strip();
        try {
            return stripped.startsWith("{") ? fromJson(stripped, kid, algorithm) : List.of(fromPem(stripped, kid, algorithm));
        } catch (JsonProcessingException invalid) {
            throw new InvalidKeysException("It is not JSON. Paste the output of `notifier keys jwks`.");
        } catch (GeneralSecurityException | RuntimeException invalid) {
            throw new InvalidKeysException("A key cannot be read. Paste the output of `notifier keys jwks`.");
        }
    }

    private static List<PublicJwk> fromJson(String text, String kid, String algorithm) throws JsonProcessingException, GeneralSecurityException, InvalidKeysException {
        JsonNode document = JSON.readTree(text);
        List<PublicJwk> keys = new ArrayList<>();
        for (JsonNode each : document.has("keys") ? document.get("keys") : List.of(document)) {
            for (String member : PRIVATE_MEMBERS) {
                if (each.has(member)) {
                    throw new InvalidKeysException("It contains a private or symmetric key. Paste only public keys: the output of `notifier keys jwks`.");
                }
            }
            keys.add(toJwk(fromJwk(each), each.path("kid").asText(kid), each.path("alg").asText(algorithm)));
        }
        if (keys.isEmpty()) {
            throw new InvalidKeysException("It does not contain a key. Paste the output of `notifier keys jwks`.");
        }
        return keys;
    }

    private static PublicKey fromJwk(JsonNode jwk) throws GeneralSecurityException {
        String curve = jwk.path("crv").asText();
        return switch (jwk.path("kty").asText()) {
            case "RSA" -> KeyFactory.getInstance("RSA").generatePublic(new RSAPublicKeySpec(number(jwk, "n"), number(jwk, "e")));
            case "EC" -> {
                AlgorithmParameters parameters = AlgorithmParameters.getInstance("EC");
                parameters.init(new ECGenParameterSpec(JCA_CURVES.get(curve)));
                ECPoint point = new ECPoint(number(jwk, "x"), number(jwk, "y"));
                yield KeyFactory.getInstance("EC").generatePublic(new ECPublicKeySpec(point, parameters.getParameterSpec(ECParameterSpec.class)));
            }
            case "OKP" -> {
                String der = OKP_DER.get(curve) + HexFormat.of().formatHex(bytes(jwk, "x"));
                yield KeyFactory.getInstance(curve).generatePublic(new X509EncodedKeySpec(HexFormat.of().parseHex(der)));
            }
            default -> throw new InvalidKeySpecException("neither RSA, EC nor OKP");
        };
    }

    private static BigInteger number(JsonNode jwk, String member) {
        return new BigInteger(1, bytes(jwk, member));
    }

    private static byte[] bytes(JsonNode jwk, String member) {
        return Base64.getUrlDecoder().decode(jwk.path(member).asText());
    }

    private static PublicJwk fromPem(String text, String kid, String algorithm) throws GeneralSecurityException, InvalidKeysException {
        if (text.contains("PRIVATE KEY")) {
            throw new InvalidKeysException("It is a private key. Paste only the public key: the output of `notifier keys jwks`.");
        }
        if (text.contains("BEGIN CERTIFICATE")) {
            byte[] bytes = text.getBytes(StandardCharsets.US_ASCII);
            return toJwk(CertificateFactory.getInstance("X.509").generateCertificate(new ByteArrayInputStream(bytes)).getPublicKey(), kid, algorithm);
        }
        byte[] der = Base64.getMimeDecoder().decode(text.replaceAll("-----[^-]+-----", ""));
        for (String type : List.of("RSA", "EC", "EdDSA")) {
            try {
                return toJwk(KeyFactory.getInstance(type).generatePublic(new X509EncodedKeySpec(der)), kid, algorithm);
            } catch (InvalidKeySpecException otherType) {
                // try the next one
            }
        }
        throw new InvalidKeysException("It is not a public RSA, EC, Ed25519 or Ed448 key in PEM. Paste the output of `notifier keys jwks`.");
    }

    private static PublicJwk toJwk(PublicKey key, String kid, String algorithm) throws InvalidKeysException {
        if (kid == null || kid.isBlank()) {
            throw new InvalidKeysException("A key has no kid. Give the kid that notifier signs with: `notifier keys jwks` prints it.");
        }
        String type;
        String curve = null;
        if (key.getAlgorithm().equals("RSA")) {
            type = "RSA";
        } else if (key instanceof ECPublicKey elliptic) {
            type = "EC";
            curve = CURVES.get(elliptic.getParams().getOrder().bitLength());
        } else if (key instanceof EdECPublicKey edwards) {
            type = "OKP";
            curve = edwards.getParams().getName();
        } else {
            throw new InvalidKeysException("A key is of type " + key.getAlgorithm() + ", which is not supported. Paste the output of `notifier keys jwks`.");
        }
        String defaultAlgorithm = ALGORITHMS.get(type.equals("EC") ? curve : type);
        return new PublicJwk(kid.strip(), type, algorithm == null || algorithm.isBlank() ? defaultAlgorithm : algorithm.strip(), curve, key);
    }
}
