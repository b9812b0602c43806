package dev.notifier.keycloak.watch;

import dev.notifier.keycloak.publishing.Trouble;

/** Counts what became of events. */
public interface Tally {
    /** Handed over, on disk or in memory alone. */
    void written(int events, boolean onDisk);

    /** Confirmed by the broker, or taken by notifier's API. */
    void published(int events);

    /** Endings that nobody will hear of. */
    void lost(int events);

    /** Set aside, since they can never be published. */
    void refused(int events);

    /** Set aside, since they were too old. */
    void expired(int events);

    /** A try that failed. */
    void failed(Trouble.Reason reason);

    /** An ending that could not be read where it happened: an error of ours. */
    void broken();
}
