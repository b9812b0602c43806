package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.Lane;

/** Limits and counts the pending events on disk or in memory. Mass logouts may use only a part, so that sign-outs have the rest. */
final class Capacity {
    private static final double BULK_SHARE_ON_DISK = 0.9;
    private static final double BULK_SHARE_IN_MEMORY = 0.5;

    private final long maxEvents;
    private final long maxBytes;
    private final boolean countsBulkEvents;
    private long eventCount;
    private long bulkEventCount;
    private long byteCount;

    private Capacity(long maxEvents, long maxBytes, boolean countsBulkEvents) {
        this.maxEvents = maxEvents;
        this.maxBytes = maxBytes;
        this.countsBulkEvents = countsBulkEvents;
    }

    /** On disk, mass logouts are limited by bytes alone: their events share files, and could otherwise use up the limit of events. */
    static Capacity onDisk(long maxEvents, long maxBytes) {
        return new Capacity(maxEvents, maxBytes, false);
    }

    /** In memory, each event counts. */
    static Capacity inMemory(long maxEvents) {
        return new Capacity(maxEvents, Long.MAX_VALUE, true);
    }

    /** Reserves space for an entry. Returns false, and reserves nothing, if it does not fit. */
    synchronized boolean tryReserve(OutboxEntry entry) {
        if (!fits(entry)) {
            return false;
        }
        reserve(entry);
        return true;
    }

    private boolean fits(OutboxEntry entry) {
        boolean isBulk = entry.lane() == Lane.BULK;
        if (!countsBulkEvents) {
            boolean fitsByCount = isBulk || eventCount - bulkEventCount + entry.eventCount() <= maxEvents;
            return fitsByCount && byteCount + entry.byteCount() <= (isBulk ? BULK_SHARE_ON_DISK : 1) * maxBytes;
        }
        boolean fitsInShare = !isBulk || bulkEventCount + entry.eventCount() <= BULK_SHARE_IN_MEMORY * maxEvents;
        return fitsInShare && eventCount + entry.eventCount() <= maxEvents;
    }

    /** Reserves space for an entry that exists already, even beyond the limits. */
    synchronized void reserve(OutboxEntry entry) {
        change(entry, 1);
    }

    synchronized void release(OutboxEntry entry) {
        change(entry, -1);
    }

    private void change(OutboxEntry entry, int sign) {
        eventCount += sign * (long) entry.eventCount();
        bulkEventCount += entry.lane() == Lane.BULK ? sign * (long) entry.eventCount() : 0;
        byteCount += sign * entry.byteCount();
    }

    synchronized long eventCount() {
        return eventCount;
    }
}
