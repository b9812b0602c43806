package dev.notifier.publisher.outbox;

import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;

/** The pending events of one lane, oldest first. */
public final class LaneQueue {
    private final TreeMap<String, OutboxEntry> waiting = new TreeMap<>();

    synchronized void add(OutboxEntry entry) {
        waiting.put(entry.name(), entry);
        notifyAll();
    }

    /** It is published, or set aside. */
    synchronized void remove(OutboxEntry entry) {
        waiting.remove(entry.name());
    }

    /** The oldest with events that are due, so many that they hold `events`, or all. Empty if nothing came within the time. */
    public synchronized List<OutboxEntry> oldest(int events, long millis) throws InterruptedException {
        List<OutboxEntry> found = due(events);
        if (found.isEmpty() && millis > 0) {
            wait(millis);
            found = due(events);
        }
        return found;
    }

    private List<OutboxEntry> due(int events) {
        List<OutboxEntry> found = new ArrayList<>();
        int held = 0;
        for (OutboxEntry entry : waiting.values()) {
            if (held >= events) {
                break;
            }
            if (entry.due() > 0) {
                found.add(entry);
                held += entry.due();
            }
        }
        return found;
    }

    /** Whether it has events that are due. */
    public synchronized boolean hasDue() {
        return !due(1).isEmpty();
    }

    public synchronized boolean contains(OutboxEntry entry) {
        return waiting.get(entry.name()) == entry;
    }

    /** The deferred events are due again. */
    public synchronized void restoreDeferred() {
        waiting.values().forEach(each -> each.deferred().clear());
    }

    /** Those that are in memory alone. */
    synchronized List<OutboxEntry> inMemory() {
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
