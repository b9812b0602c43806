package dev.notifier.publisher.settings;

import java.net.URI;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Set;

/**
 * What the operator has set, checked.
 *
 * @param endpoint where events go
 * @param realms whose endings are published; empty for all
 */
public record PublisherSettings(Endpoint endpoint, Secret secret, OutboxLimits outbox, Tls tls, String exchange, String bulkExchange,
        Duration publishLimit, Duration drainLimit, boolean includeClientMetadata, Set<String> realms) {

    /** RabbitMQ's hosts, or notifier's API. */
    public sealed interface Endpoint permits Broker, Api {
    }

    /** @param hosts of one cluster, tried in this order; `password` is null unless the URL holds it */
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

    /** @param events the address that events are posted to */
    public record Api(URI events) implements Endpoint {
        @Override
        public String toString() {
            return events.toString();
        }
    }

    /** The broker's password or the API's token: as it is, or in a file that is read again at each connection. */
    public record Secret(String value, Path file) {
        @Override
        public String toString() {
            return "(secret)";
        }
    }

    /** @param signOutLimit how long a sign-out waits for the disk */
    public record OutboxLimits(Path folder, int maxEvents, long maxBytes, Duration maxAge, Duration signOutLimit) {
    }

    /** Each may be null. */
    public record Tls(Path caFile, Path certificateFile, Path keyFile) {
    }

    /** True if the endings of this realm are published. */
    public boolean tells(String realm) {
        return realms.isEmpty() || realms.contains(realm);
    }
}
