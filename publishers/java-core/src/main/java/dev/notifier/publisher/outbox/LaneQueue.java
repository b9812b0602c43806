package dev.notifier.publisher.outbox;

import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;

/** The entries of one lane that are ready to be published, oldest first. */
public final class LaneQueue {
    private final TreeMap<String, OutboxEntry> entries = new TreeMap<>();

    synchronized void add(OutboxEntry entry) {
        entries.put(entry.name(), entry);
        notifyAll();
    }

    synchronized void remove(OutboxEntry entry) {
        entries.remove(entry.name());
    }

    /**
     * Returns the oldest entries with events that are due. Waits if there are none.
     *
     * @param eventCount the number of due events that the returned entries have together, if so many are due
     * @param maxWaitMillis the list is empty if nothing is due by then
     */
    public synchronized List<OutboxEntry> oldest(int eventCount, long maxWaitMillis) throws InterruptedException {
        List<OutboxEntry> due = due(eventCount);
        if (due.isEmpty() && maxWaitMillis > 0) {
            wait(maxWaitMillis);
            due = due(eventCount);
        }
        return due;
    }

    private List<OutboxEntry> due(int eventCount) {
        List<OutboxEntry> due = new ArrayList<>();
        int dueCount = 0;
        for (OutboxEntry entry : entries.values()) {
            if (dueCount >= eventCount) {
                break;
            }
            if (entry.dueCount() > 0) {
                due.add(entry);
                dueCount += entry.dueCount();
            }
        }
        return due;
    }

    /** Returns whether any event is due. */
    public synchronized boolean hasDue() {
        return !due(1).isEmpty();
    }

    public synchronized boolean contains(OutboxEntry entry) {
        return entries.get(entry.name()) == entry;
    }

    /** Makes all deferred events due again. */
    public synchronized void restoreDeferred() {
        entries.values().forEach(each -> each.deferred().clear());
    }

    /** Returns the entries that are only in memory. */
    synchronized List<OutboxEntry> inMemory() {
        return entries.values().stream().filter(each -> each.file() == null).toList();
    }

    public synchronized boolean isEmpty() {
        return entries.isEmpty();
    }

    /** Returns when the oldest entry was written, in milliseconds since 1970; 0 without an entry. */
    synchronized long oldestWrittenAt() {
        return entries.isEmpty() ? 0 : entries.firstEntry().getValue().writtenAt();
    }
}
