package dev.notifier.publisher.publishing;

/** Pauses after failures, doubled up to the longest. */
final class Backoff {
    static final long SHORTEST = 250;
    static final long LONGEST = 10_000;

    private final long shortest;
    private final long longest;
    private long next;

    /** For a lane: 0.25 s, 0.5 s, 1 s … 10 s. */
    Backoff() {
        this(SHORTEST, LONGEST);
    }

    Backoff(long shortest, long longest) {
        this.shortest = shortest;
        this.longest = longest;
        this.next = shortest;
    }

    /** The pause that is due now, in milliseconds. */
    long pause() {
        long pause = next;
        next = Math.min(next * 2, longest);
        return pause;
    }

    void succeeded() {
        next = shortest;
    }
}
