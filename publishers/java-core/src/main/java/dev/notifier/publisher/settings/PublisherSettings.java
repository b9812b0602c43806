package dev.notifier.publisher.settings;

import java.net.URI;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;

/**
 * The validated settings.
 *
 * @param endpoint the destination of events
 * @param clientName the name of the connection, which RabbitMQ's management page shows
 */
public record PublisherSettings(Endpoint endpoint, String clientName, Secret secret, OutboxLimits outbox, Tls tls, String exchange, String bulkExchange,
        Duration publishLimit, Duration drainLimit, boolean includeClientMetadata) {

    /** RabbitMQ's hosts, or notifier's API. */
    public sealed interface Endpoint permits Broker, Api {
    }

    /**
     * RabbitMQ.
     *
     * @param hosts the hosts of one cluster, in the order in which they are tried
     * @param password null unless the URL contains it
     */
    public record Broker(List<Host> hosts, String user, String password, String virtualHost, boolean tls) implements Endpoint {
        @Override
        public String toString() {
            return (tls ? "amqps://" : "amqp://") + String.join(",", hosts.stream().map(Host::toString).toList()); // no password
        }
    }

    /** One host of a cluster. */
    public record Host(String name, int port) {
        @Override
        public String toString() {
            return name + ":" + port;
        }
    }

    /**
     * notifier's API.
     *
     * @param events the URL to which events are posted
     */
    public record Api(URI events) implements Endpoint {
        @Override
        public String toString() {
            return events.toString();
        }
    }

    /** The broker's password or the API's token, as a value or in a file. */
    public record Secret(String value, Path file) {
        @Override
        public String toString() {
            return "(secret)";
        }
    }

    /**
     * The folder of the outbox and its limits.
     *
     * @param signOutLimit the longest time that a sign-out waits for the disk
     */
    public record OutboxLimits(Path folder, int maxEvents, long maxBytes, Duration maxAge, Duration signOutLimit) {
    }

    /** PEM files: the authorities to trust, and the client certificate with its key. Each is null if it is not set. */
    public record Tls(Path caFile, Path certificateFile, Path keyFile) {
    }
}
