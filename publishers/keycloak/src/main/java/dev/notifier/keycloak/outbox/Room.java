package dev.notifier.keycloak.outbox;

/** How much may wait, and how much does. */
final class Room {
    private final long mostEvents;
    private final long mostBytes;
    private long events;
    private long bytes;

    Room(long mostEvents, long mostBytes) {
        this.mostEvents = mostEvents;
        this.mostBytes = mostBytes;
    }

    /** False, and nothing is taken, if there is no room. */
    synchronized boolean take(int moreEvents, long moreBytes) {
        if (events + moreEvents > mostEvents || bytes + moreBytes > mostBytes) {
            return false;
        }
        add(moreEvents, moreBytes);
        return true;
    }

    /** What is there already is kept, however much. */
    synchronized void add(int moreEvents, long moreBytes) {
        events += moreEvents;
        bytes += moreBytes;
    }

    synchronized void give(int fewerEvents, long fewerBytes) {
        add(-fewerEvents, -fewerBytes);
    }

    synchronized long events() {
        return events;
    }
}
