package dev.notifier.spring;

import dev.notifier.publisher.SessionEndedPublisher;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.SessionEnded;
import dev.notifier.publisher.monitoring.PendingEvents;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import java.io.IOException;
import java.util.List;
import java.util.Set;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The publisher of this process, started and stopped by {@link SessionSweep}. */
final class NotifierPublisher {
    private static final Logger LOG = LoggerFactory.getLogger(NotifierPublisher.class);

    private final NotifierSettings settings;
    private final PublisherMetrics metrics;
    private volatile SessionEndedPublisher publisher;

    NotifierPublisher(NotifierSettings settings, PublisherMetrics metrics) {
        this.settings = settings;
        this.metrics = metrics;
    }

    void start() {
        try {
            publisher = SessionEndedPublisher.start(settings.publisher(), metrics);
        } catch (IOException failure) {
            throw NotifierSettings.createFolderFailure(settings.publisher().outbox().folder(), failure);
        }
        publisher.startTakeover(sessions -> Set.of()); // events are written when their sessions have ended
        LOG.info("notifier: session ended events go to {}, by the outbox {}", settings.publisher().endpoint(), settings.publisher().outbox().folder());
    }

    void stop() {
        publisher.close();
    }

    /** Returns when the events are in one file, or in memory if the disk is full, failing or slow. */
    void publish(List<SessionEnded> ends, Lane lane) {
        publisher.publishSessionsEnded(ends, lane);
    }

    PendingEvents pendingEvents() {
        return publisher.outbox();
    }

    /** Counts clients that will not be notified. */
    void onLost(int count) {
        metrics.onLost(count);
    }
}
