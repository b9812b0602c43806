package dev.notifier.keycloak.outbox;

import dev.notifier.keycloak.event.Lane;

/** How much may wait, and how much does. */
final class Room {
    /** The rest is for sign-outs. */
    private static final double BULK_SHARE_ON_DISK = 0.9;
    private static final double BULK_SHARE_IN_MEMORY = 0.5;

    private final long mostEvents;
    private final long mostBytes;
    private final boolean counted;
    private long events;
    private long mass;
    private long bytes;

    private Room(long mostEvents, long mostBytes, boolean counted) {
        this.mostEvents = mostEvents;
        this.mostBytes = mostBytes;
        this.counted = counted;
    }

    /** On a disk. Mass logouts share files and are limited by bytes alone: each could otherwise fill the room for events. */
    static Room onDisk(long mostEvents, long mostBytes) {
        return new Room(mostEvents, mostBytes, false);
    }

    /** In memory, where each event counts. */
    static Room inMemory(long mostEvents) {
        return new Room(mostEvents, Long.MAX_VALUE, true);
    }

    /** False, and nothing is taken, if there is no room. */
    synchronized boolean take(Slip slip) {
        boolean bulk = slip.lane() == Lane.BULK;
        boolean free = bulk && !counted;
        double share = !bulk ? 1 : counted ? BULK_SHARE_IN_MEMORY : BULK_SHARE_ON_DISK;
        if (!free && events - (counted ? 0 : mass) + slip.events() > mostEvents || bytes + slip.bytes() > share * mostBytes
                || bulk && counted && mass + slip.events() > share * mostEvents) {
            return false;
        }
        add(slip);
        return true;
    }

    /** What is there already is kept, however much. */
    synchronized void add(Slip slip) {
        change(slip, 1);
    }

    synchronized void give(Slip slip) {
        change(slip, -1);
    }

    private void change(Slip slip, int sign) {
        events += sign * (long) slip.events();
        mass += slip.lane() == Lane.BULK ? sign * (long) slip.events() : 0;
        bytes += sign * slip.bytes();
    }

    synchronized long events() {
        return events;
    }
}
