package dev.notifier.publisher;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.SessionEnded;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import dev.notifier.publisher.monitoring.LogThrottle;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import dev.notifier.publisher.outbox.Outbox;
import dev.notifier.publisher.outbox.OutboxEntry;
import dev.notifier.publisher.outbox.SessionLookup;
import dev.notifier.publisher.publishing.AmqpTransport;
import dev.notifier.publisher.publishing.HttpTransport;
import dev.notifier.publisher.publishing.LanePublisher;
import dev.notifier.publisher.publishing.Transport;
import dev.notifier.publisher.settings.PublisherSettings;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Publishes session ended events to notifier: an outbox and one publishing thread for each lane. A process has one publisher.
 *
 * A server whose sessions end in database transactions uses the {@link #outbox} itself: `prepare` before the commit, `commit`
 * or `lookUp` after it. Otherwise {@link #publishSessionEnded} suffices.
 */
public final class SessionEndedPublisher implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger("dev.notifier.publisher.Publisher");
    private static final long INTERRUPT_AFTER_MILLIS = 100;
    private static final long JOIN_AFTER_INTERRUPT_MILLIS = 1_000;

    private final PublisherSettings settings;
    private final PublisherMetrics metrics;
    private final Outbox outbox;
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));
    private final List<LanePublisher> lanes = new ArrayList<>();
    private final List<Thread> threads = new ArrayList<>();

    private SessionEndedPublisher(PublisherSettings settings, PublisherMetrics metrics, Outbox outbox) {
        this.settings = settings;
        this.metrics = metrics;
        this.outbox = outbox;
    }

    /**
     * Opens the outbox and starts to publish.
     *
     * @param metrics closed with the publisher
     * @throws IOException if the folder of the outbox cannot be used
     */
    public static SessionEndedPublisher start(PublisherSettings settings, PublisherMetrics metrics) throws IOException {
        Outbox outbox = Outbox.open(settings.outbox(), metrics);
        metrics.observe(outbox);
        SessionEndedPublisher publisher = new SessionEndedPublisher(settings, metrics, outbox);
        for (Lane lane : Lane.values()) {
            publisher.startLane(lane);
        }
        return publisher;
    }

    private void startLane(Lane lane) {
        Transport transport = settings.endpoint() instanceof PublisherSettings.Broker ? new AmqpTransport(settings, lane) : new HttpTransport(settings, lane);
        LanePublisher publisher = new LanePublisher(lane, outbox, transport, metrics);
        Thread thread = new DaemonThreadFactory("notifier-publisher-" + lane.label()).newThread(publisher);
        lanes.add(publisher);
        threads.add(thread);
        thread.start();
    }

    /** Starts the outbox's background tasks, such as taking over the events of ended processes. Call it once, when sessions can be looked up. */
    public void startTakeover(SessionLookup lookup) {
        outbox.start(lookup);
    }

    /**
     * Queues the events of a session that has ended. Returns when they are on disk, or in memory if the disk is full, failing or slower
     * than the sign-out limit. If the memory is full too, they are lost, which is logged.
     */
    public void publishSessionEnded(SessionEnded sessionEnded, Lane lane) {
        publishSessionsEnded(List.of(sessionEnded), lane);
    }

    /** Queues the events of sessions that have ended in one file, as {@link #publishSessionEnded}. */
    public void publishSessionsEnded(List<SessionEnded> ends, Lane lane) {
        OutboxEntry entry = outbox.prepare(ends.stream().flatMap(each -> each.toEvents(lane).stream()).toList());
        if (entry != null) {
            outbox.commit(entry);
        }
    }

    public PublisherSettings settings() {
        return settings;
    }

    public Outbox outbox() {
        return outbox;
    }

    /** Runs a task on a thread of the server. Logs runtime exceptions, linkage errors and stack overflows instead of throwing them. */
    public void runGuarded(String description, Runnable task) {
        try {
            task.run();
        } catch (RuntimeException | LinkageError | StackOverflowError failure) {
            metrics.onInternalError();
            if (throttle.tryAcquire(description + failure.getClass())) {
                LOG.error("notifier: {} failed, and its events may not be published", description, failure);
            }
        }
    }

    /**
     * Stops when all due events are published, or after `drain-limit`, and a few more seconds until its threads end. The next process
     * publishes the remaining events on disk; those in memory are lost if the disk still refuses them.
     */
    @Override
    public void close() {
        outbox.stopBackgroundTasks();
        long deadline = System.currentTimeMillis() + settings.drainLimit().toMillis();
        lanes.forEach(each -> each.stopBy(deadline));
        for (Thread thread : threads) {
            try {
                thread.join(Math.max(1, deadline - System.currentTimeMillis() + INTERRUPT_AFTER_MILLIS));
                thread.interrupt();
                thread.join(JOIN_AFTER_INTERRUPT_MILLIS);
            } catch (InterruptedException stopped) {
                Thread.currentThread().interrupt();
            }
        }
        outbox.stop();
        metrics.close();
    }
}
