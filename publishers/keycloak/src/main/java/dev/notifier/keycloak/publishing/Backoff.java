package dev.notifier.keycloak.publishing;

/** Pauses after failures: 0.25 s, 0.5 s, 1 s … 10 s, without an end. */
final class Backoff {
    static final long SHORTEST = 250;
    static final long LONGEST = 10_000;

    private long next = SHORTEST;

    /** The pause that is due now, in milliseconds. */
    long pause() {
        long pause = next;
        next = Math.min(next * 2, LONGEST);
        return pause;
    }

    void succeeded() {
        next = SHORTEST;
    }
}
