package dev.notifier.keycloak.outbox;

import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;

/** The pending events of one lane, oldest first. */
public final class LaneQueue {
    private final TreeMap<String, Slip> waiting = new TreeMap<>();

    synchronized void add(Slip slip) {
        waiting.put(slip.name(), slip);
        notifyAll();
    }

    /** It is published, or set aside. */
    synchronized void remove(Slip slip) {
        waiting.remove(slip.name());
    }

    /** The oldest, so many that they hold `events`, or all. Empty if nothing came within the time. */
    public synchronized List<Slip> oldest(int events, long millis) throws InterruptedException {
        if (waiting.isEmpty() && millis > 0) {
            wait(millis);
        }
        List<Slip> found = new ArrayList<>();
        int held = 0;
        for (Slip slip : waiting.values()) {
            if (held >= events) {
                break;
            }
            found.add(slip);
            held += slip.events() - slip.published().cardinality();
        }
        return found;
    }

    /** Those that are in memory alone. */
    synchronized List<Slip> inMemory() {
        return waiting.values().stream().filter(each -> each.file() == null).toList();
    }

    public synchronized boolean isEmpty() {
        return waiting.isEmpty();
    }

    /** When the oldest was written, in milliseconds; 0 if nothing waits. */
    synchronized long oldestMillis() {
        return waiting.isEmpty() ? 0 : waiting.firstEntry().getValue().millis();
    }
}
