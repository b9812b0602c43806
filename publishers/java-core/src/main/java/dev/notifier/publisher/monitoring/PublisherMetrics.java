package dev.notifier.publisher.monitoring;

import dev.notifier.publisher.publishing.PublishException;

/** Counts the results of events. */
public interface PublisherMetrics {
    /** Handed over, on disk or in memory alone. */
    void written(int events, boolean onDisk);

    /** Confirmed by the broker, or taken by notifier's API. */
    void published(int events);

    /** Lost events: no client is notified. */
    void lost(int events);

    /** Set aside, since they can never be published. */
    void refused(int events);

    /** Set aside, since they were too old. */
    void expired(int events);

    /** A try that failed. */
    void failed(PublishException.Reason reason);

    /** An ending that could not be read: an internal error. */
    void broken();
}
