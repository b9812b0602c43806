package dev.notifier.publisher.settings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SettingsReaderTest {
    @TempDir
    Path folder;

    private PublisherSettings read(String... given) {
        Map<String, String> settings = new HashMap<>(Map.of("url", "amqps://idp@rabbitmq.example.com/", "secret", "s3cret", "outboxFolder", folder.toString()));
        for (int i = 0; i < given.length; i += 2) {
            settings.put(given[i], given[i + 1]);
        }
        return SettingsReader.read(settings::get, "example-", "test");
    }

    private String mistakes(String... given) {
        return assertThrows(InvalidSettingsException.class, () -> read(given)).getMessage();
    }

    @Test
    void theDefaultsAreTheServices() {
        PublisherSettings settings = read();
        assertEquals("notifier.events", settings.exchange());
        assertEquals("notifier.bulk", settings.bulkExchange());
        assertEquals(100_000, settings.outbox().maxEvents());
        assertEquals(268_435_456, settings.outbox().maxBytes());
        assertEquals(Duration.ofDays(30), settings.outbox().maxAge());
        assertEquals(Duration.ofSeconds(2), settings.outbox().signOutLimit());
        assertEquals(Duration.ofSeconds(10), settings.publishLimit());
        assertEquals(Duration.ofSeconds(5), settings.drainLimit());
        assertTrue(settings.includeClientMetadata());
    }

    @Test
    void theBrokersUrlIsParsed() {
        PublisherSettings.Broker broker = (PublisherSettings.Broker) read("url", "amqps://i%40dp@one,two:5673,[::1]:99/a%2Fb").endpoint();
        assertEquals("i@dp", broker.user());
        assertEquals("a/b", broker.virtualHost());
        assertTrue(broker.tls());
        assertEquals(List.of(new PublisherSettings.Host("one", 5671), new PublisherSettings.Host("two", 5673), new PublisherSettings.Host("::1", 99)), broker.hosts());
    }

    @Test
    void aSlashAtTheEndIsTheDefaultVirtualHost() {
        assertEquals("/", ((PublisherSettings.Broker) read("url", "amqp://idp@host/").endpoint()).virtualHost());
        assertEquals("/", ((PublisherSettings.Broker) read("url", "amqp://idp@host").endpoint()).virtualHost());
    }

    @Test
    void theApisUrlMayHaveAPath() {
        assertEquals("https://n.example.com/x/v1/events", ((PublisherSettings.Api) read("url", "https://n.example.com/x/").endpoint()).events().toString());
    }

    @Test
    void allMistakesAreReportedAtOnce() {
        String message = mistakes("url", "redis://host", "outboxFolder", "", "outboxMaxEvents", "many", "publishLimit", "-1", "includeClientMetadata", "yes",
                "tlsCaFile", "/nowhere/ca.pem");
        for (String name : List.of("url", "outbox-folder", "outbox-max-events", "publish-limit", "include-client-metadata", "tls-ca-file")) {
            assertTrue(message.contains("example-" + name + " "), message);
        }
    }

    @Test
    void aSecondPasswordIsRefused() throws Exception {
        Path file = Files.writeString(folder.resolve("password"), "other");
        assertTrue(mistakes("secretFile", file.toString()).contains("more than once"));
        assertTrue(mistakes("url", "amqps://idp:word@host").contains("more than once"));
        assertTrue(mistakes("secret", "").contains("secret-file is missing"));
    }

    @Test
    void aUrlWithTheApisPathIsRefused() {
        for (String path : List.of("/v1", "/v1/events", "/v1/events/", "/V1/Events", "/v1/events/okta")) {
            String correction = "includes the API's path: write https://host/x, without " + path.replaceFirst("/$", "");
            assertTrue(mistakes("url", "https://host/x" + path).contains(correction), path);
        }
    }

    @Test
    void noMessageContainsAPassword() {
        assertFalse(mistakes("url", "amqps://idp:pa55word@host/a/b").contains("pa55word"));
        assertFalse(mistakes("url", "amqps://idp:pa55word@").contains("pa55word"));
        assertFalse(read("url", "amqps://idp:pa55word@host", "secret", "").toString().contains("pa55word"));
        assertFalse(read().toString().contains("s3cret"));
    }

    @Test
    void tlsFilesNeedTls() throws Exception {
        Path ca = Files.writeString(folder.resolve("ca.pem"), "");
        assertTrue(mistakes("url", "amqp://idp@host", "tlsCaFile", ca.toString()).contains("without TLS"));
        assertTrue(mistakes("tlsCertificateFile", ca.toString()).contains("tls-key-file is missing"));
    }

    @Test
    void timesHaveUnits() {
        assertEquals(Duration.ofMillis(250), read("publishLimit", "250ms").publishLimit());
        assertEquals(Duration.ofMillis(1500), read("publishLimit", "1.5").publishLimit());
        assertEquals(Duration.ofHours(12), read("outboxMaxAge", "12h").outbox().maxAge());
        assertTrue(mistakes("drainLimit", "2h").contains("drain-limit is 2h"));
    }

    @Test
    void aPackageMayGroupTheNames() {
        String message = assertThrows(InvalidSettingsException.class, () -> SettingsReader.read(name -> null, name -> "<" + name + ">", "test")).getMessage();
        assertTrue(message.contains("<outboxFolder> is missing"), message);
    }
}
