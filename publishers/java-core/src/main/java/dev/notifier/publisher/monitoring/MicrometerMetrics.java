package dev.notifier.publisher.monitoring;

import dev.notifier.publisher.outbox.Outbox;
import dev.notifier.publisher.publishing.PublishException;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.Meter;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Metrics;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;

/** Counts on Keycloak's `/metrics`. Every series is there from the start, at zero. */
final class MicrometerMetrics implements PublisherMetrics, AutoCloseable {
    private static final String NAME = "notifier.publisher.";

    private final MeterRegistry registry = Metrics.globalRegistry;
    private final List<Meter> meters = new ArrayList<>();
    private final Counter onDisk = counter("written", "Events handed over", "kept", "disk");
    private final Counter inMemory = counter("written", "Events handed over", "kept", "memory");
    private final Counter published = counter("published", "Events that the broker or the API has confirmed");
    private final Counter lost = counter("lost", "Events lost: no client is notified");
    private final Counter refused = counter("refused", "Events set aside, since they can never be published");
    private final Counter expired = counter("expired", "Events set aside, since they were too old");
    private final Counter broken = counter("errors", "Errors of the plug-in itself, see the log");
    private final Map<PublishException.Reason, Counter> failures = new EnumMap<>(PublishException.Reason.class);

    MicrometerMetrics() {
        for (PublishException.Reason reason : PublishException.Reason.values()) {
            failures.put(reason, counter("failures", "Tries to publish that failed", "reason", reason.word()));
        }
    }

    /** Show how much waits, too. */
    void watch(Outbox outbox) {
        meters.add(Gauge.builder(NAME + "waiting", outbox, Outbox::waiting).description("Events that wait").register(registry));
        meters.add(Gauge.builder(NAME + "waiting.in.memory", outbox, Outbox::waitingInMemory).description("Events that are in memory alone").register(registry));
        meters.add(Gauge.builder(NAME + "oldest.age", outbox, Outbox::oldestAge).baseUnit("seconds").description("Age of the oldest event").register(registry));
    }

    private Counter counter(String name, String help, String... labels) {
        Counter made = Counter.builder(NAME + name).description(help).tags(labels).register(registry);
        meters.add(made);
        return made;
    }

    @Override
    public void written(int events, boolean disk) {
        (disk ? onDisk : inMemory).increment(events);
    }

    @Override
    public void published(int events) {
        published.increment(events);
    }

    @Override
    public void lost(int events) {
        lost.increment(events);
    }

    @Override
    public void refused(int events) {
        refused.increment(events);
    }

    @Override
    public void expired(int events) {
        expired.increment(events);
    }

    @Override
    public void failed(PublishException.Reason reason) {
        failures.get(reason).increment();
    }

    @Override
    public void broken() {
        broken.increment();
    }

    @Override
    public void close() {
        meters.forEach(registry::remove);
    }
}
