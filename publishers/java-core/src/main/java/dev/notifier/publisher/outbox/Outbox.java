package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.settings.PublisherSettings.OutboxLimits;
import dev.notifier.publisher.monitoring.LogThrottle;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.EnumMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import org.jboss.logging.Logger;

/**
 * Keeps events until they are published: on disk, or in memory where the disk takes nothing.
 *
 * An ending is written before its session is deleted (`prepare`), and then either `happened`, is `undone`, or is looked up.
 */
public final class Outbox implements AutoCloseable {
    private static final Logger LOG = Logger.getLogger(Outbox.class);
    private static final int MOST_IN_MEMORY = 10_000;
    private static final int PROCESS_BYTES = 4;

    private final OutboxLimits limits;
    private final PublisherMetrics metrics;
    private final OutboxFolder folder;
    private final Capacity disk;
    private final Capacity memory = Capacity.inMemory(MOST_IN_MEMORY);
    private final OutboxWriter writer;
    private final OutboxWorker worker;
    private final Map<Lane, LaneQueue> lanes = new EnumMap<>(Lane.class);
    private final String process;
    private final AtomicLong number = new AtomicLong();
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));
    private final List<Path> left;
    private volatile boolean closed;
    private final LogThrottle lossThrottle = new LogThrottle(Duration.ofSeconds(1));

    private Outbox(OutboxLimits limits, PublisherMetrics metrics, OutboxFolder folder) throws IOException {
        this.limits = limits;
        this.metrics = metrics;
        this.folder = folder;
        this.disk = Capacity.onDisk(limits.maxEvents(), limits.maxBytes());
        this.writer = new OutboxWriter(folder, limits.signOutLimit());
        byte[] random = new byte[PROCESS_BYTES];
        new SecureRandom().nextBytes(random);
        this.process = HexFormat.of().formatHex(random);
        for (Lane lane : Lane.values()) {
            lanes.put(lane, new LaneQueue());
        }
        this.left = folder.left(); // before anything is written: what is there now is an earlier process's
        this.worker = new OutboxWorker(this, folder);
    }

    /**
     * Claim a folder.
     *
     * @throws IOException if the folder cannot be used
     */
    public static Outbox open(OutboxLimits limits, PublisherMetrics metrics) throws IOException {
        return new Outbox(limits, metrics, OutboxFolder.claim(limits.folder()));
    }

    /** Take up what earlier processes left, now and every minute. */
    public void start(SessionLookup lookUp) {
        worker.start(lookUp, left);
    }

    /** Write endings of one lane before their sessions are deleted. Returns within the limit. Null if there was no room anywhere. */
    public OutboxEntry prepare(List<OutgoingEvent> events) {
        OutboxEntry entry = OutboxEntry.of(events, System.currentTimeMillis(), process, number.getAndIncrement());
        String why = "the outbox is full: bring the broker back, or raise outbox-max-events and outbox-max-bytes";
        boolean room = disk.take(entry);
        if (room) {
            why = writer.write(entry, OutboxFolder.PENDING);
            if (why == null) {
                return entry;
            }
            disk.give(entry);
        }
        if (!closed && memory.take(entry)) {
            if (throttle.tryAcquire(room ? "the disk takes nothing" : "full")) {
                LOG.errorf("notifier: events are kept in memory alone, and are lost if this process ends: %s", why);
            }
            return entry;
        }
        lose(events, why);
        return null;
    }

    /** The sessions are gone. */
    public void happened(OutboxEntry entry) {
        worker.soon(() -> enqueue(entry));
    }

    /** The sessions live: the transaction was rolled back. */
    public void undone(OutboxEntry entry) {
        worker.soon(() -> forget(entry));
    }

    /**
     * Look up in a separate transaction which sessions are gone.
     *
     * @param settled whether the database has finished its transaction
     */
    public void lookUp(OutboxEntry entry, boolean settled) {
        worker.lookUp(entry, settled);
    }

    /** The pending events of a lane. */
    public LaneQueue lane(Lane lane) {
        return lanes.get(lane);
    }

    /**
     * The events of a slip; null in place of an unreadable event.
     *
     * @throws IOException if the file cannot be read now
     */
    public List<OutgoingEvent> read(OutboxEntry entry) throws IOException {
        List<OutgoingEvent> kept = entry.inMemory();
        if (kept != null) {
            return kept;
        }
        byte[] content;
        try {
            content = Files.readAllBytes(OutboxFolder.requireOurs(entry.file()));
        } catch (OutboxFolder.UntrustedFileException refused) {
            LOG.errorf("notifier: %s", refused);
            return Collections.singletonList(null);
        }
        List<OutgoingEvent> found = new ArrayList<>();
        for (String line : new String(content, StandardCharsets.UTF_8).split("\n")) {
            try {
                found.add(OutgoingEvent.of(line));
            } catch (IOException wrong) {
                found.add(null);
            }
        }
        return found;
    }

    /** All its events are published. */
    public void published(OutboxEntry entry) {
        lanes.get(entry.lane()).remove(entry);
        forget(entry);
    }

    /** It is set aside under another ending, and never published. */
    public void setAside(OutboxEntry entry, String ending) {
        lanes.get(entry.lane()).remove(entry);
        Path file = entry.finish();
        give(entry);
        try {
            if (file != null) {
                folder.renamed(file, entry.name(), ending);
            }
        } catch (IOException failed) {
            LOG.errorf("notifier: %s cannot be renamed to %s: %s", entry.name(), ending, failed);
        }
    }

    /** It cannot be read now: others go first, and it is tried again a minute later. */
    public void later(OutboxEntry entry) {
        lanes.get(entry.lane()).remove(entry);
        worker.inAMinute(() -> lanes.get(entry.lane()).add(entry));
    }

    /** True if it is older than events may become. */
    public boolean isTooOld(OutboxEntry entry) {
        return entry.millis() > 0 && System.currentTimeMillis() - entry.millis() > limits.maxAge().toMillis();
    }

    /** How many events wait. */
    public long waiting() {
        return disk.events() + memory.events();
    }

    /** How many of them are in memory alone. */
    public long waitingInMemory() {
        return memory.events();
    }

    /** Age of the oldest that could be published, in seconds. */
    public double oldestAge() {
        long oldest = lanes.values().stream().mapToLong(LaneQueue::oldestMillis).filter(each -> each > 0).min().orElse(0);
        return oldest == 0 ? 0 : Math.max(0, System.currentTimeMillis() - oldest) / 1000.0;
    }

    /** Call before the publishers stop: afterwards all endings are in their queue. */
    public void settle() {
        worker.close();
    }

    /**
     * Nobody publishes any more. What is in memory alone is written, if the disk takes it now. A sign-out that is still under
     * way is written, too: the folder is ours until the process is gone, and the next one publishes it.
     */
    public void retire() {
        closed = true;
        worker.close();
        saveMemory();
        long lost = memory.events();
        if (lost > 0) {
            metrics.lost((int) lost);
            LOG.errorf("notifier: %d events were in memory alone, and are lost with this process", lost);
        }
    }

    /** Retire, and give the folder up. */
    @Override
    public void close() {
        retire();
        writer.close();
        try {
            folder.close();
        } catch (IOException failed) {
            LOG.warnf("notifier: %s", failed);
        }
    }

    /** The sessions of a slip are gone: it may be published. */
    void enqueue(OutboxEntry entry) {
        Path file = entry.file();
        metrics.written(entry.events(), file != null);
        try {
            if (file != null) {
                entry.moved(folder.renamed(file, entry.name(), OutboxFolder.READY));
            }
        } catch (IOException failed) { // published from where it is; after a restart it is looked up
            LOG.warnf("notifier: %s cannot be renamed: %s", entry.name(), failed);
        }
        lanes.get(entry.lane()).add(entry);
    }

    /** It is over with this slip. */
    void forget(OutboxEntry entry) {
        Path file = entry.finish();
        give(entry);
        try {
            if (file != null) {
                OutboxFolder.remove(file);
            }
        } catch (IOException failed) {
            if (throttle.tryAcquire("remove")) {
                LOG.errorf("notifier: %s cannot be removed, and is published again after a restart: %s", entry.name(), failed);
            }
        }
    }

    private void give(OutboxEntry entry) {
        (entry.file() == null ? memory : disk).give(entry);
    }

    /** A file that an earlier process left is counted, however many there are. */
    void found(OutboxEntry entry) {
        disk.add(entry);
    }

    /** A slip of some of the endings of another, in its place in time. Null if it cannot be written now. */
    OutboxEntry part(OutboxEntry whole, List<OutgoingEvent> events) {
        OutboxEntry part = OutboxEntry.of(events, whole.millis(), process, number.getAndIncrement());
        if (whole.file() == null) {
            memory.add(part);
        } else if (writer.write(part, OutboxFolder.READY) == null) {
            disk.add(part);
        } else {
            return null;
        }
        return part;
    }

    /** The disk is tried again, and takes over what is in memory alone. */
    void saveMemory() {
        List<OutboxEntry> kept = lanes.values().stream().flatMap(each -> each.inMemory().stream()).toList();
        if (!writer.isWell() && !writer.tryAgain()) {
            return;
        }
        for (OutboxEntry entry : kept) {
            if (!disk.take(entry)) {
                continue; // a sign-out may fit where a mass logout does not
            }
            entry.resume();
            if (writer.write(entry, OutboxFolder.READY) != null) {
                disk.give(entry);
                return;
            }
            if (entry.file() == null) { // published meanwhile
                disk.give(entry);
                continue;
            }
            memory.give(entry);
        }
    }

    private void lose(List<OutgoingEvent> events, String why) {
        metrics.lost(events.size());
        if (lossThrottle.tryAcquire("lost")) {
            LOG.errorf("notifier: event %s is LOST, %d in all; no client is notified: %s", events.get(0).id(), events.size(), why);
        }
    }
}
