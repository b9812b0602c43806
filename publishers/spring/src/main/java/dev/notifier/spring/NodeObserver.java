package dev.notifier.spring;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Renews the row of this process, and removes the rows of killed processes, whose sessions have ended with them.
 *
 * A process counts as killed if its row has not changed for two minutes, measured by the clock of this process, in which this process has
 * itself reached the database all the time. Otherwise each outage of the database would end all sessions. Only {@link SessionSweep} uses it,
 * on one thread.
 */
final class NodeObserver {
    private static final Logger LOG = LoggerFactory.getLogger(NodeObserver.class);
    static final Duration INTERVAL = Duration.ofSeconds(15);
    private static final long TIMEOUT_NANOS = Duration.ofMinutes(2).toNanos();
    private static final long MAX_GAP_NANOS = Duration.ofMinutes(1).toNanos();

    private final SessionClientStore store;
    private final LongSupplier nanoTime;
    private final Map<String, Observation> observations = new HashMap<>();
    private long observedAt;

    /** @param seenAt the time in the row @param since when it was read first, by this process's clock */
    private record Observation(long seenAt, long since) {
    }

    NodeObserver(SessionClientStore store, LongSupplier nanoTime) {
        this.store = store;
        this.nanoTime = nanoTime;
    }

    void observe() {
        store.renewNode();
        Map<String, Long> nodes = store.findNodes();
        long now = nanoTime.getAsLong();
        if (now - observedAt > MAX_GAP_NANOS) {
            observations.clear();
        }
        observedAt = now;
        observations.keySet().retainAll(nodes.keySet());
        nodes.forEach((node, seenAt) -> {
            Observation first = observations.merge(node, new Observation(seenAt, now), (last, latest) -> last.seenAt() == latest.seenAt() ? last : latest);
            if (now - first.since() >= TIMEOUT_NANOS) {
                LOG.warn("notifier: process {} has not reported for {} s, so its sessions have ended", node, (now - first.since()) / 1_000_000_000);
                store.removeNode(node);
            }
        });
    }
}
