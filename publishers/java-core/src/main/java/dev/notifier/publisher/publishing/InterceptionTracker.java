package dev.notifier.publisher.publishing;

import java.util.NavigableSet;
import java.util.TreeSet;
import java.util.function.LongSupplier;
import java.util.function.Predicate;

/**
 * Tracks the events of a lane to which an intermediary responds in place of notifier, or which notifier does not permit. Only the
 * lane's thread uses it.
 *
 * An event is deferred after three responses of an intermediary, or when notifier responds 403: the lane continues without it.
 * Deferred events are probed one at a time, in rotation. A confirmed probe restores all of them. Nothing is stored: after a restart
 * each event has its attempts again.
 *
 * @param <T> an event; the older sorts first
 */
final class InterceptionTracker<T extends Comparable<T>> {
    static final int MAX_ATTEMPTS = 3;
    static final long FIRST_PROBE_INTERVAL_MILLIS = 10_000;
    static final long MAX_PROBE_INTERVAL_MILLIS = 60_000;

    private final LongSupplier clock;
    private final NavigableSet<T> deferred = new TreeSet<>();
    private final Backoff backoff = new Backoff(FIRST_PROBE_INTERVAL_MILLIS, MAX_PROBE_INTERVAL_MILLIS);
    private T counted; // one counter suffices: a lane retries its oldest event until it is confirmed or deferred
    private int attempts;
    private long probeAt;
    private T probed;

    /** @param clock monotonic milliseconds */
    InterceptionTracker(LongSupplier clock) {
        this.clock = clock;
    }

    boolean isDeferred(T event) {
        return deferred.contains(event);
    }

    /** Returns whether the last intercepted response was the first one to its event. */
    boolean isFirstAttempt() {
        return attempts == 1;
    }

    /** Counts an intercepted response. Returns true if the event is deferred because of it. */
    boolean onIntercepted(T event) {
        if (isDeferred(event)) {
            return false;
        }
        attempts = event.equals(counted) ? attempts + 1 : 1;
        counted = event;
        return attempts >= MAX_ATTEMPTS && defer(event);
    }

    /** Defers an event. Returns false if it was deferred already. */
    boolean defer(T event) {
        if (deferred.isEmpty()) {
            backoff.reset();
            probeAt = clock.getAsLong() + backoff.nextPause();
        }
        return deferred.add(event);
    }

    /** Restores all deferred events if this one was deferred. Returns whether it was. */
    boolean onConfirmed(T event) {
        boolean wasDeferred = isDeferred(event);
        if (wasDeferred) {
            deferred.clear();
        }
        return wasDeferred;
    }

    /**
     * Returns the deferred event to probe now; null if none is due.
     *
     * @param isPending returns whether an event is still in the outbox; others are forgotten
     */
    T selectProbe(Predicate<T> isPending) {
        if (deferred.isEmpty() || clock.getAsLong() < probeAt) {
            return null;
        }
        deferred.removeIf(isPending.negate());
        T next = probed == null ? null : deferred.higher(probed);
        probed = next != null || deferred.isEmpty() ? next : deferred.first();
        probeAt = clock.getAsLong() + backoff.nextPause();
        return probed;
    }
}
