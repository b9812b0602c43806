package dev.notifier.publisher.publishing;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.settings.SettingsReader;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.util.Base64;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The first bytes that a broker receives, with a trusted certificate of the right or another name. */
class AmqpTlsTest {
    private static final char[] PASSWORD = "password".toCharArray();

    @TempDir
    Path folder;

    @Test
    void theProtocolStartsWithTheRightName() throws Exception {
        assertEquals("AMQP", received("ip:127.0.0.1"));
    }

    @Test
    void nothingIsSentToAnotherName() throws Exception {
        assertEquals("", received("dns:elsewhere.example"));
    }

    private String received(String name) throws Exception {
        try (SSLServerSocket server = listening(store(name))) {
            CompletableFuture<String> received = CompletableFuture.supplyAsync(() -> read(server));
            Map<String, String> given = Map.of("url", "amqps://idp@127.0.0.1:" + server.getLocalPort() + "/", "secret", "s3cret",
                    "outboxFolder", folder.toString(), "publishLimit", "5s", "tlsCaFile", folder.resolve("ca.pem").toString());
            AmqpTransport transport = new AmqpTransport(SettingsReader.read(given::get, "", "test"), Lane.EVENTS);
            assertThrows(PublishException.class, transport::connect);
            transport.close();
            return received.get();
        }
    }

    private static String read(SSLServerSocket server) {
        try (SSLSocket socket = (SSLSocket) server.accept(); InputStream from = socket.getInputStream()) {
            return new String(from.readNBytes(4), StandardCharsets.US_ASCII);
        } catch (IOException refused) {
            return "";
        }
    }

    private static SSLServerSocket listening(KeyStore store) throws Exception {
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(store, PASSWORD);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), null, null);
        return (SSLServerSocket) context.getServerSocketFactory().createServerSocket(0, 1, java.net.InetAddress.getLoopbackAddress());
    }

    /** A key whose certificate is of this name, written to `ca.pem` too. */
    private KeyStore store(String name) throws Exception {
        Path file = folder.resolve("server.p12");
        Files.deleteIfExists(file);
        Process keytool = new ProcessBuilder(Path.of(System.getProperty("java.home"), "bin", "keytool").toString(), "-genkeypair", "-alias", "server",
                "-keyalg", "EC", "-dname", "CN=server", "-ext", "SAN=" + name, "-storetype", "PKCS12", "-keystore", file.toString(),
                "-storepass", new String(PASSWORD)).redirectErrorStream(true).start();
        assertEquals(0, keytool.waitFor(), () -> "keytool failed");
        KeyStore store = KeyStore.getInstance(file.toFile(), PASSWORD);
        String certificate = Base64.getMimeEncoder().encodeToString(store.getCertificate("server").getEncoded());
        Files.writeString(folder.resolve("ca.pem"), "-----BEGIN CERTIFICATE-----\n" + certificate + "\n-----END CERTIFICATE-----\n");
        return store;
    }
}
