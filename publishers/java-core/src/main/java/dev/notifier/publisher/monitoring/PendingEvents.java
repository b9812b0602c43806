package dev.notifier.publisher.monitoring;

/** The number and age of the events that are not published yet. */
public interface PendingEvents {
    /** Returns the number of events on disk and in memory. */
    long pendingCount();

    /** Returns the number of events that are only in memory. */
    long pendingInMemoryCount();

    /** Returns the age of the oldest event that is ready to be published, in seconds; 0 without one. */
    double oldestAgeSeconds();
}
