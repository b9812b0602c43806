package dev.notifier.spring;

import dev.notifier.publisher.SessionEndedPublisher;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.SessionEnded;
import dev.notifier.publisher.monitoring.PendingEvents;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import java.io.IOException;
import java.util.Set;
import java.util.function.Supplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.context.SmartLifecycle;

/** Publishes while the application runs: starts before the web server and stops after it. */
final class NotifierPublisher implements SmartLifecycle {
    private static final Logger LOG = LoggerFactory.getLogger(NotifierPublisher.class);
    static final int PHASE = 0;

    private final NotifierSettings settings;
    private final Supplier<PublisherMetrics> createMetrics;
    private volatile PublisherMetrics metrics;
    private volatile SessionEndedPublisher publisher;
    private volatile boolean isRunning;

    NotifierPublisher(NotifierSettings settings, Supplier<PublisherMetrics> createMetrics) {
        this.settings = settings;
        this.createMetrics = createMetrics;
    }

    @Override
    public synchronized void start() {
        metrics = createMetrics.get();
        try {
            publisher = SessionEndedPublisher.start(settings.publisher(), metrics);
        } catch (IOException failure) {
            throw NotifierSettings.createFolderFailure(settings.publisher().outbox().folder(), failure);
        }
        publisher.startTakeover(sessions -> Set.of()); // events are written when their sessions have ended
        isRunning = true;
        LOG.info("notifier: session ended events go to {}, by the outbox {}", settings.publisher().endpoint(), settings.publisher().outbox().folder());
    }

    @Override
    public synchronized void stop() {
        isRunning = false;
        publisher.close();
    }

    /** Returns when the event is on disk, or in memory if the disk is full, failing or slow. */
    void publish(SessionEnded sessionEnded, Lane lane) {
        SessionEndedPublisher current = publisher;
        if (current == null) {
            throw new IllegalStateException("the publisher has not started");
        }
        current.publishSessionEnded(sessionEnded, lane);
    }

    /** Returns the pending events; null before the start. */
    PendingEvents pendingEvents() {
        return publisher == null ? null : publisher.outbox();
    }

    /** Counts clients that will not be notified. */
    void onLost(int count) {
        if (metrics != null) {
            metrics.onLost(count);
        }
    }

    @Override
    public boolean isRunning() {
        return isRunning;
    }

    @Override
    public int getPhase() {
        return PHASE;
    }

    /** Spring 7 asks this before it pauses the context of a test: each start would claim another folder of the outbox. */
    public boolean isPauseable() {
        return false;
    }
}
