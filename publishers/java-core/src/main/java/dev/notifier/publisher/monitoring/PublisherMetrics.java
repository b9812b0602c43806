package dev.notifier.publisher.monitoring;

/** Counts what happens to events. */
public interface PublisherMetrics extends AutoCloseable {
    /** Reports the pending events from now on. */
    void observe(PendingEvents pending);

    /** Events were handed over for publishing. They are on disk, or only in memory. */
    void onWritten(int events, boolean onDisk);

    /** The broker or notifier's API has confirmed events. */
    void onPublished(int events);

    /** Events were lost: their clients are not notified. */
    void onLost(int events);

    /** Events were set aside because they can never be published. */
    void onRefused(int events);

    /** Events were set aside because they were too old. */
    void onExpired(int events);

    /** An attempt to publish failed. */
    void onAttemptFailed(FailureReason reason);

    /** The publisher itself failed. */
    void onInternalError();

    @Override
    void close();
}
