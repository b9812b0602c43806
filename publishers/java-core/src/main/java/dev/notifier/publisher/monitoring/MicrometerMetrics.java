package dev.notifier.publisher.monitoring;

import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.Meter;
import io.micrometer.core.instrument.MeterRegistry;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;

/** Registers the metrics with Micrometer. Each series exists from the start, with the value 0. */
public final class MicrometerMetrics implements PublisherMetrics {
    private static final String PREFIX = "notifier.publisher.";

    private final MeterRegistry registry;
    private final List<Meter> meters = new ArrayList<>();
    private final Counter writtenToDisk;
    private final Counter writtenToMemory;
    private final Counter published;
    private final Counter lost;
    private final Counter refused;
    private final Counter expired;
    private final Counter internalErrors;
    private final Map<FailureReason, Counter> failures = new EnumMap<>(FailureReason.class);

    public MicrometerMetrics(MeterRegistry registry) {
        this.registry = registry;
        writtenToDisk = counter("written", "Events handed over", "kept", "disk");
        writtenToMemory = counter("written", "Events handed over", "kept", "memory");
        published = counter("published", "Events that the broker or the API has confirmed");
        lost = counter("lost", "Events lost: no client is notified");
        refused = counter("refused", "Events set aside, since they can never be published");
        expired = counter("expired", "Events set aside, since they were too old");
        internalErrors = counter("errors", "Errors of the publisher itself, see the log");
        for (FailureReason reason : FailureReason.values()) {
            failures.put(reason, counter("failures", "Tries to publish that failed", "reason", reason.label()));
        }
    }

    private Counter counter(String name, String help, String... labels) {
        Counter counter = Counter.builder(PREFIX + name).description(help).tags(labels).register(registry);
        meters.add(counter);
        return counter;
    }

    @Override
    public void observe(PendingEvents pending) {
        meters.add(Gauge.builder(PREFIX + "waiting", pending, PendingEvents::pendingCount).description("Pending events").register(registry));
        meters.add(Gauge.builder(PREFIX + "waiting.in.memory", pending, PendingEvents::pendingInMemoryCount).description("Events that are only in memory")
                .register(registry));
        meters.add(Gauge.builder(PREFIX + "oldest.age", pending, PendingEvents::oldestAgeSeconds).baseUnit("seconds").description("Age of the oldest event")
                .register(registry));
    }

    @Override
    public void onWritten(int events, boolean onDisk) {
        (onDisk ? writtenToDisk : writtenToMemory).increment(events);
    }

    @Override
    public void onPublished(int events) {
        published.increment(events);
    }

    @Override
    public void onLost(int events) {
        lost.increment(events);
    }

    @Override
    public void onRefused(int events) {
        refused.increment(events);
    }

    @Override
    public void onExpired(int events) {
        expired.increment(events);
    }

    @Override
    public void onAttemptFailed(FailureReason reason) {
        failures.get(reason).increment();
    }

    @Override
    public void onInternalError() {
        internalErrors.increment();
    }

    @Override
    public void close() {
        meters.forEach(registry::remove);
    }
}
