package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.Lane;
import java.nio.file.Path;
import java.util.BitSet;
import java.util.List;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** One file of the outbox, or what takes its place in memory where the disk takes nothing. Its name sorts by time. */
public final class OutboxEntry {
    private static final Pattern NAME = Pattern.compile("(\\d{13})-([0-9a-f]{8})-(\\d{8})-([a-z]+)-(\\d+)");

    private final String name;
    private final Lane lane;
    private final int events;
    private final long bytes;
    private final BitSet published = new BitSet();
    private final BitSet deferred = new BitSet();
    private Path file;
    private List<OutgoingEvent> inMemory;
    private boolean abandoned;
    private boolean over;
    private boolean flawed;

    private OutboxEntry(String name, Lane lane, int events, long bytes) {
        this.name = name;
        this.lane = lane;
        this.events = events;
        this.bytes = bytes;
    }

    /** Of endings that happen now, written nowhere yet. */
    static OutboxEntry of(List<OutgoingEvent> events, long millis, String process, long number) {
        Lane lane = events.get(0).lane();
        String name = String.format(Locale.ROOT, "%013d-%s-%08d-%s-%d", millis, process, number % 100_000_000, lane.word(), events.size());
        OutboxEntry entry = new OutboxEntry(name, lane, events.size(), events.stream().mapToLong(each -> each.event().length).sum());
        entry.inMemory = events;
        return entry;
    }

    /** Of a file that is there. Null if the name is none of ours. */
    static OutboxEntry found(Path file, String name, long bytes) {
        Matcher read = NAME.matcher(name);
        Lane lane = read.matches() ? Lane.of(read.group(4)) : null;
        return lane == null ? null : foreign(file, name, lane, Integer.parseInt(read.group(5)), bytes);
    }

    /** Of a file with a foreign name. */
    static OutboxEntry foreign(Path file, String name, Lane lane, int events, long bytes) {
        OutboxEntry entry = new OutboxEntry(name, lane, events, bytes);
        entry.file = file;
        return entry;
    }

    public String name() {
        return name;
    }

    public Lane lane() {
        return lane;
    }

    /** How many events it holds. */
    public int events() {
        return events;
    }

    long bytes() {
        return bytes;
    }

    /** When it was written, in milliseconds; 0 if the name does not contain it. */
    long millis() {
        return NAME.matcher(name).matches() ? Long.parseLong(name.substring(0, 13)) : 0;
    }

    /** Null if it is in memory alone. */
    synchronized Path file() {
        return file;
    }

    synchronized List<OutgoingEvent> inMemory() {
        return inMemory;
    }

    /** The writer's word that it is on disk. False if nobody waits for that any more. */
    synchronized boolean written(Path at) {
        if (abandoned || over) {
            return false;
        }
        file = at;
        inMemory = null;
        return true;
    }

    synchronized void moved(Path to) {
        file = to;
    }

    /** The disk took too long: it is in memory from now on. False if it was written meanwhile. */
    synchronized boolean abandon() {
        abandoned = file == null;
        return abandoned;
    }

    /** The disk is well again: it may be written. */
    synchronized void resume() {
        abandoned = false;
    }

    /** Nothing more becomes of it. Returns its file, or null if it was in memory alone. */
    synchronized Path finish() {
        over = true;
        return file;
    }

    /** One of its events can never be published: the file is kept for people to look at. */
    public void flaw() {
        flawed = true;
    }

    /** True if the file is kept for people to look at. */
    public boolean isFlawed() {
        return flawed;
    }

    /** Which of its events were published already. Used by its lane's thread alone. */
    public BitSet published() {
        return published;
    }

    /** Which of its events are deferred: another server answers to them in place of notifier. Used by its lane's thread alone. */
    public BitSet deferred() {
        return deferred;
    }

    /** How many of its events are to be published, without the deferred ones. */
    int due() {
        return events - published.cardinality() - deferred.cardinality();
    }
}
