package dev.notifier.publisher.publishing;

import dev.notifier.publisher.monitoring.FailureReason;
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

/** Creates TLS contexts from the configured files. They are read for each connection, so that renewed certificates take effect. */
final class TlsContextFactory {
    private static final String PKCS8 = "-----BEGIN PRIVATE KEY-----";

    private TlsContextFactory() {
    }

    static SSLContext create(Tls tls) throws PublishException {
        try {
            TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            trust.init(tls.caFile() == null ? null : trustStore(tls.caFile())); // null: the authorities that Java trusts
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(tls.certificateFile() == null ? null : keyManagers(tls), trust.getTrustManagers(), null);
            return context;
        } catch (GeneralSecurityException | IOException failure) {
            throw new PublishException(FailureReason.DENIED, "the TLS files cannot be used: " + failure.getMessage());
        }
    }

    private static KeyStore trustStore(Path file) throws GeneralSecurityException, IOException {
        KeyStore store = emptyStore();
        int number = 0;
        for (Certificate each : certificates(file)) {
            store.setCertificateEntry("ca-" + number++, each);
        }
        return store;
    }

    private static KeyManager[] keyManagers(Tls tls) throws GeneralSecurityException, IOException {
        KeyStore store = emptyStore();
        store.setKeyEntry("client", privateKey(tls.keyFile()), new char[0], certificates(tls.certificateFile()).toArray(Certificate[]::new));
        KeyManagerFactory managers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        managers.init(store, new char[0]);
        return managers.getKeyManagers();
    }

    private static KeyStore emptyStore() throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        return store;
    }

    private static Collection<? extends Certificate> certificates(Path file) throws GeneralSecurityException, IOException {
        Collection<? extends Certificate> certificates = CertificateFactory.getInstance("X.509")
                .generateCertificates(new ByteArrayInputStream(Files.readAllBytes(file)));
        if (certificates.isEmpty()) {
            throw new IOException(file + " holds no certificate in PEM");
        }
        return certificates;
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
            } catch (InvalidKeySpecException otherAlgorithm) {
                // try the next one
            }
        }
        throw new IOException(file + " holds a key that is neither RSA nor EC");
    }
}
