package dev.notifier.publisher.publishing;

import dev.notifier.publisher.settings.PublisherSettings.Tls;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.InvalidKeySpecException;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.Collection;
import java.util.List;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** The trusted authorities and the client certificate, read again for each connection. */
final class TlsContextFactory {
    private static final String PKCS8 = "-----BEGIN PRIVATE KEY-----";

    private TlsContextFactory() {
    }

    static SSLContext of(Tls tls) throws PublishException {
        try {
            TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            trust.init(tls.caFile() == null ? null : trusted(tls.caFile())); // null: the authorities that Java trusts
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(tls.certificateFile() == null ? null : keys(tls), trust.getTrustManagers(), null);
            return context;
        } catch (GeneralSecurityException | IOException failed) {
            throw new PublishException(PublishException.Reason.DENIED, "the TLS files cannot be used: " + failed.getMessage());
        }
    }

    private static KeyStore trusted(Path file) throws GeneralSecurityException, IOException {
        KeyStore store = empty();
        int number = 0;
        for (Certificate each : certificates(file)) {
            store.setCertificateEntry("ca-" + number++, each);
        }
        return store;
    }

    private static KeyManager[] keys(Tls tls) throws GeneralSecurityException, IOException {
        KeyStore store = empty();
        store.setKeyEntry("own", privateKey(tls.keyFile()), new char[0], certificates(tls.certificateFile()).toArray(Certificate[]::new));
        KeyManagerFactory managers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        managers.init(store, new char[0]);
        return managers.getKeyManagers();
    }

    private static KeyStore empty() throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        return store;
    }

    private static Collection<? extends Certificate> certificates(Path file) throws GeneralSecurityException, IOException {
        Collection<? extends Certificate> found = CertificateFactory.getInstance("X.509")
                .generateCertificates(new ByteArrayInputStream(Files.readAllBytes(file)));
        if (found.isEmpty()) {
            throw new IOException(file + " holds no certificate in PEM");
        }
        return found;
    }

    private static PrivateKey privateKey(Path file) throws GeneralSecurityException, IOException {
        String text = Files.readString(file, StandardCharsets.US_ASCII);
        int begin = text.indexOf(PKCS8);
        int end = text.indexOf("-----END", begin + 1);
        if (begin < 0 || end < 0) {
            throw new IOException(file + " holds no key in PKCS#8: openssl pkcs8 -topk8 -nocrypt makes one of others");
        }
        byte[] der = Base64.getMimeDecoder().decode(text.substring(begin + PKCS8.length(), end));
        for (String algorithm : List.of("RSA", "EC", "Ed25519")) {
            try {
                return KeyFactory.getInstance(algorithm).generatePrivate(new PKCS8EncodedKeySpec(der));
            } catch (InvalidKeySpecException another) {
                // the next one
            }
        }
        throw new IOException(file + " holds a key that is neither RSA nor EC");
    }
}
