package dev.notifier.publisher.publishing;

/** Returns the pauses after failures: each twice the previous one, up to a limit. */
final class Backoff {
    static final long FIRST_PAUSE_MILLIS = 250;
    static final long MAX_PAUSE_MILLIS = 10_000;

    private final long firstMillis;
    private final long maxMillis;
    private long nextMillis;

    /** For a lane: 0.25 s, 0.5 s, 1 s … 10 s. */
    Backoff() {
        this(FIRST_PAUSE_MILLIS, MAX_PAUSE_MILLIS);
    }

    Backoff(long firstMillis, long maxMillis) {
        this.firstMillis = firstMillis;
        this.maxMillis = maxMillis;
        this.nextMillis = firstMillis;
    }

    /** Returns the next pause in milliseconds. */
    long nextPause() {
        long pause = nextMillis;
        nextMillis = Math.min(nextMillis * 2, maxMillis);
        return pause;
    }

    /** Starts again with the first pause. */
    void reset() {
        nextMillis = firstMillis;
    }
}
