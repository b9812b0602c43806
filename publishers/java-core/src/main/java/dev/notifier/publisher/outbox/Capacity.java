package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.Lane;

/** How much may wait, and how much does. */
final class Capacity {
    /** The rest is for sign-outs. */
    private static final double BULK_SHARE_ON_DISK = 0.9;
    private static final double BULK_SHARE_IN_MEMORY = 0.5;

    private final long mostEvents;
    private final long mostBytes;
    private final boolean counted;
    private long events;
    private long mass;
    private long bytes;

    private Capacity(long mostEvents, long mostBytes, boolean counted) {
        this.mostEvents = mostEvents;
        this.mostBytes = mostBytes;
        this.counted = counted;
    }

    /** On a disk. Mass logouts share files and are limited by bytes alone: each could otherwise fill the room for events. */
    static Capacity onDisk(long mostEvents, long mostBytes) {
        return new Capacity(mostEvents, mostBytes, false);
    }

    /** In memory, where each event counts. */
    static Capacity inMemory(long mostEvents) {
        return new Capacity(mostEvents, Long.MAX_VALUE, true);
    }

    /** False, and nothing is taken, if there is no room. */
    synchronized boolean take(OutboxEntry entry) {
        boolean bulk = entry.lane() == Lane.BULK;
        boolean free = bulk && !counted;
        double share = !bulk ? 1 : counted ? BULK_SHARE_IN_MEMORY : BULK_SHARE_ON_DISK;
        if (!free && events - (counted ? 0 : mass) + entry.events() > mostEvents || bytes + entry.bytes() > share * mostBytes
                || bulk && counted && mass + entry.events() > share * mostEvents) {
            return false;
        }
        add(entry);
        return true;
    }

    /** What is there already is kept, however much. */
    synchronized void add(OutboxEntry entry) {
        change(entry, 1);
    }

    synchronized void give(OutboxEntry entry) {
        change(entry, -1);
    }

    private void change(OutboxEntry entry, int sign) {
        events += sign * (long) entry.events();
        mass += entry.lane() == Lane.BULK ? sign * (long) entry.events() : 0;
        bytes += sign * entry.bytes();
    }

    synchronized long events() {
        return events;
    }
}
