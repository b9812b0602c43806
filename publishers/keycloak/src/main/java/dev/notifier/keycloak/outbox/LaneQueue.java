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

    /** The oldest with events that are due, so many that they hold `events`, or all. Empty if nothing came within the time. */
    public synchronized List<Slip> oldest(int events, long millis) throws InterruptedException {
        List<Slip> found = due(events);
        if (found.isEmpty() && millis > 0) {
            wait(millis);
            found = due(events);
        }
        return found;
    }

    private List<Slip> due(int events) {
        List<Slip> found = new ArrayList<>();
        int held = 0;
        for (Slip slip : waiting.values()) {
            if (held >= events) {
                break;
            }
            if (slip.due() > 0) {
                found.add(slip);
                held += slip.due();
            }
        }
        return found;
    }

    /** Whether it has events that are due. */
    public synchronized boolean hasDue() {
        return !due(1).isEmpty();
    }

    public synchronized boolean contains(Slip slip) {
        return waiting.get(slip.name()) == slip;
    }

    /** The deferred events are due again. */
    public synchronized void restoreDeferred() {
        waiting.values().forEach(each -> each.deferred().clear());
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
