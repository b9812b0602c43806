package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.OutgoingEvent;
import java.nio.file.Path;
import java.util.BitSet;
import java.util.List;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** One file of the outbox with its events, or the events in memory while the disk is full or failing. Names sort by time. */
public final class OutboxEntry {
    private static final Pattern NAME = Pattern.compile("(\\d{13})-([0-9a-f]{8})-(\\d{8})-([a-z]+)-(\\d{1,9})");

    private final String name;
    private final Lane lane;
    private final int eventCount;
    private final long byteCount;
    private final BitSet completed = new BitSet();
    private final BitSet deferred = new BitSet();
    private Path file;
    private List<OutgoingEvent> inMemory;
    private String asideSuffix;
    private boolean isWriting;
    private boolean isAbandoned;
    private boolean isFinished;
    private boolean isSetAside;
    private boolean hasRefusedEvent;

    private OutboxEntry(String name, Lane lane, int eventCount, long byteCount) {
        this.name = name;
        this.lane = lane;
        this.eventCount = eventCount;
        this.byteCount = byteCount;
    }

    /** Creates an entry for new events of one lane. It is in memory until its file is written. */
    static OutboxEntry create(List<OutgoingEvent> events, long writtenAt, String process, long number) {
        Lane lane = events.get(0).lane();
        String name = String.format(Locale.ROOT, "%013d-%s-%08d-%s-%d", writtenAt, process, number % 100_000_000, lane.label(), events.size());
        OutboxEntry entry = new OutboxEntry(name, lane, events.size(), events.stream().mapToLong(each -> each.json().length).sum());
        entry.inMemory = events;
        return entry;
    }

    /** Returns the entry of an existing file; null if the outbox did not choose its name. */
    static OutboxEntry fromFile(Path file, String name, long byteCount) {
        Matcher parsed = NAME.matcher(name);
        Lane lane = parsed.matches() ? Lane.fromLabel(parsed.group(4)) : null;
        return lane == null ? null : fromForeignFile(file, name, lane, Integer.parseInt(parsed.group(5)), byteCount);
    }

    /** Returns the entry of an existing file with any name. */
    static OutboxEntry fromForeignFile(Path file, String name, Lane lane, int eventCount, long byteCount) {
        OutboxEntry entry = new OutboxEntry(name, lane, eventCount, byteCount);
        entry.file = file;
        return entry;
    }

    /** Returns the file name without its suffix. */
    public String name() {
        return name;
    }

    public Lane lane() {
        return lane;
    }

    public int eventCount() {
        return eventCount;
    }

    long byteCount() {
        return byteCount;
    }

    /** Returns the time in the name, in milliseconds since 1970; 0 without one. */
    long writtenAt() {
        return NAME.matcher(name).matches() ? Long.parseLong(name.substring(0, 13)) : 0;
    }

    /** Returns the file; null if the entry is only in memory. */
    synchronized Path file() {
        return file;
    }

    /** Returns the events; null if they are in the file. */
    synchronized List<OutgoingEvent> inMemory() {
        return inMemory;
    }

    /** Starts a write of the file. Returns false if another write is running, or if the file is not needed. */
    synchronized boolean tryStartWrite() {
        if (isWriting || file != null || isFinished && (asideSuffix == null || isSetAside)) {
            return false;
        }
        isWriting = true;
        return true;
    }

    /** Ends the write: the file exists. Returns false, and ignores the file, if the entry was abandoned or finished meanwhile. */
    synchronized boolean onWritten(Path written) {
        isWriting = false;
        isSetAside = asideSuffix != null;
        if (isAbandoned || isFinished) {
            return false;
        }
        file = written;
        inMemory = null;
        return true;
    }

    /** Ends the write: it has failed. */
    synchronized void onWriteFailed() {
        isWriting = false;
    }

    /** Returns the suffix under which the entry is set aside; null if it is not. */
    synchronized String asideSuffix() {
        return asideSuffix;
    }

    synchronized void onRenamed(Path renamed) {
        file = renamed;
    }

    /** Keeps the entry in memory, because its write failed or takes too long. Returns false if the file exists meanwhile. */
    synchronized boolean tryAbandonFile() {
        isAbandoned = file == null;
        return isAbandoned;
    }

    /** Permits another write. Returns false if the previous one is still running. */
    synchronized boolean tryResumeFile() {
        if (isWriting) {
            return false;
        }
        isAbandoned = false;
        return true;
    }

    /** Prevents any further write, because the entry is removed. Returns the file; null if the entry is only in memory. */
    synchronized Path finish() {
        isFinished = true;
        return file;
    }

    /** Prevents any further write but the one under this suffix. Returns the file; null if the entry is only in memory. */
    synchronized Path finishAside(String suffix) {
        isFinished = true;
        asideSuffix = suffix;
        return file;
    }

    /** Marks that one of the events can never be published, so that the file is kept for inspection. */
    public void markRefused() {
        hasRefusedEvent = true;
    }

    public boolean hasRefusedEvent() {
        return hasRefusedEvent;
    }

    /** Returns the lines whose events are published or refused. They change only during an attempt of the lane. */
    public BitSet completed() {
        return completed;
    }

    /** Returns the lines whose events are deferred, because another server answers to them in place of notifier, or notifier does not permit them. */
    public BitSet deferred() {
        return deferred;
    }

    /** Returns the number of events that are neither published nor deferred. */
    int dueCount() {
        return eventCount - completed.cardinality() - deferred.cardinality();
    }
}
