package dev.notifier.publisher.keys;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.KeyStore;
import java.security.interfaces.RSAPublicKey;
import java.security.spec.ECGenParameterSpec;
import java.util.Base64;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PublicKeyReaderTest {
    @TempDir
    Path folder;

    private static final String EC = "{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"e1\",\"alg\":\"ES256\",\"use\":\"sig\","
            + "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}";

    private static String pem(KeyPair pair) {
        return "-----BEGIN PUBLIC KEY-----\n" + Base64.getMimeEncoder().encodeToString(pair.getPublic().getEncoded()) + "\n-----END PUBLIC KEY-----\n";
    }

    private static KeyPair rsa() throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("RSA");
        generator.initialize(2048);
        return generator.generateKeyPair();
    }

    @Test
    void aJwkSetIsRead() throws Exception {
        PublicJwk key = PublicKeyReader.read("{\"keys\":[" + EC + "]}", null, null).get(0);
        assertEquals("e1", key.kid());
        assertEquals("ES256", key.algorithm());
        assertEquals("EC", key.keyType());
        assertEquals("P-256", key.curve());
    }

    @Test
    void eachKeyTypeIsReadFromAJwk() throws Exception {
        KeyPair rsa = rsa();
        RSAPublicKey numbers = (RSAPublicKey) rsa.getPublic();
        String jwk = "{\"kty\":\"RSA\",\"kid\":\"r\",\"n\":\"" + text(numbers.getModulus().toByteArray()) + "\",\"e\":\"" + text(numbers.getPublicExponent().toByteArray()) + "\"}";
        assertEquals(rsa.getPublic(), PublicKeyReader.read(jwk, null, null).get(0).key());
        for (String curve : List.of("Ed25519", "Ed448")) {
            byte[] der = KeyPairGenerator.getInstance(curve).generateKeyPair().getPublic().getEncoded();
            byte[] point = java.util.Arrays.copyOfRange(der, 12, der.length);
            PublicJwk read = PublicKeyReader.read("{\"kty\":\"OKP\",\"crv\":\"" + curve + "\",\"kid\":\"o\",\"x\":\"" + text(point) + "\"}", null, null).get(0);
            assertArrayEquals(der, read.key().getEncoded());
            assertEquals(List.of("EdDSA", "OKP", curve), List.of(read.algorithm(), read.keyType(), read.curve()));
        }
    }

    private static String text(byte[] bytes) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
    }

    @Test
    void aPemKeyNeedsAKid() throws Exception {
        String pem = pem(rsa());
        assertTrue(assertThrows(InvalidKeysException.class, () -> PublicKeyReader.read(pem, null, null)).getMessage().contains("kid"));
        PublicJwk key = PublicKeyReader.read(pem, "r1", "PS256").get(0);
        assertEquals(List.of("r1", "PS256", "RSA"), List.of(key.kid(), key.algorithm(), key.keyType()));
    }

    @Test
    void theAlgorithmIsDerivedFromTheKey() throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
        generator.initialize(new ECGenParameterSpec("secp384r1"));
        PublicJwk key = PublicKeyReader.read(pem(generator.generateKeyPair()), "e3", null).get(0);
        assertEquals(List.of("ES384", "P-384"), List.of(key.algorithm(), key.curve()));
        assertEquals("RS256", PublicKeyReader.read(pem(rsa()), "r", "").get(0).algorithm());
        KeyPair edwards = KeyPairGenerator.getInstance("Ed25519").generateKeyPair();
        PublicJwk ed = PublicKeyReader.read(pem(edwards), "o", null).get(0);
        assertEquals(List.of("EdDSA", "OKP", "Ed25519"), List.of(ed.algorithm(), ed.keyType(), ed.curve()));
    }

    @Test
    void theCurveOfACertificateIsReadFromItsKey() throws Exception {
        for (String curve : List.of("Ed25519", "Ed448")) {
            PublicJwk key = PublicKeyReader.read(certificate(curve), "o", null).get(0);
            assertEquals(List.of("EdDSA", "OKP", curve), List.of(key.algorithm(), key.keyType(), String.valueOf(key.curve())));
            assertEquals(curve, PublicKeyReader.read(pem(KeyPairGenerator.getInstance(curve).generateKeyPair()), "o", null).get(0).curve());
        }
    }

    @Test
    void aKeyOfAnotherTypeIsRefused() throws Exception {
        String certificate = certificate("DSA");
        String message = assertThrows(InvalidKeysException.class, () -> PublicKeyReader.read(certificate, "d", null)).getMessage();
        assertTrue(message.contains("DSA"), message);
    }

    private String certificate(String algorithm) throws Exception {
        Path file = folder.resolve(algorithm + ".p12");
        Process keytool = new ProcessBuilder(Path.of(System.getProperty("java.home"), "bin", "keytool").toString(), "-genkeypair", "-alias", "key",
                "-keyalg", algorithm, "-dname", "CN=key", "-storetype", "PKCS12", "-keystore", file.toString(), "-storepass", "password")
                .redirectErrorStream(true).start();
        assertEquals(0, keytool.waitFor(), () -> "keytool failed");
        byte[] der = KeyStore.getInstance(file.toFile(), "password".toCharArray()).getCertificate("key").getEncoded();
        return "-----BEGIN CERTIFICATE-----\n" + Base64.getMimeEncoder().encodeToString(der) + "\n-----END CERTIFICATE-----\n";
    }

    @Test
    void aPrivateKeyIsRefused() {
        String secret = EC.substring(0, EC.length() - 1) + ",\"d\":\"c2VjcmV0\"}";
        String message = assertThrows(InvalidKeysException.class, () -> PublicKeyReader.read(secret, null, null)).getMessage();
        assertTrue(message.contains("private") && !message.contains("c2VjcmV0"));
        assertThrows(InvalidKeysException.class, () -> PublicKeyReader.read("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----", "k", null));
    }

    @Test
    void textWithoutAKeyIsRefused() {
        for (String text : List.of("{", "{}", "{\"keys\":[]}", "hello", "{\"kty\":\"EC\",\"kid\":\"x\"}")) {
            assertThrows(InvalidKeysException.class, () -> PublicKeyReader.read(text, "k", null), text);
        }
    }
}
