package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.monitoring.LogThrottle;
import dev.notifier.publisher.monitoring.PendingEvents;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import dev.notifier.publisher.settings.PublisherSettings.OutboxLimits;
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
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Stores events until they are published: on disk, or in memory while the disk is full or failing.
 *
 * {@link #prepare} writes events before their sessions end. Afterwards the server calls {@link #commit} if the sessions have
 * ended, {@link #rollBack} if they live, or {@link #lookUp} if that is unknown. After a kill, the next process looks up the
 * sessions of events that were prepared, but neither committed nor rolled back.
 */
public final class Outbox implements PendingEvents, AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger("dev.notifier.publisher.outbox.Outbox");
    private static final int MAX_EVENTS_IN_MEMORY = 10_000;
    private static final int PROCESS_ID_BYTES = 4;

    private final OutboxLimits limits;
    private final PublisherMetrics metrics;
    private final OutboxFolder folder;
    private final Capacity disk;
    private final Capacity memory = Capacity.inMemory(MAX_EVENTS_IN_MEMORY);
    private final OutboxWriter writer;
    private final OutboxScheduler scheduler;
    private final Map<Lane, LaneQueue> lanes = new EnumMap<>(Lane.class);
    private final String processId;
    private final AtomicLong entryNumber = new AtomicLong();
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));
    private final LogThrottle lossThrottle = new LogThrottle(Duration.ofSeconds(1));
    private final List<Path> existing;
    private volatile boolean stopped;

    private Outbox(OutboxLimits limits, PublisherMetrics metrics, OutboxFolder folder) throws IOException {
        this.limits = limits;
        this.metrics = metrics;
        this.folder = folder;
        this.disk = Capacity.onDisk(limits.maxEvents(), limits.maxBytes());
        this.writer = new OutboxWriter(folder, limits.signOutLimit());
        byte[] random = new byte[PROCESS_ID_BYTES];
        new SecureRandom().nextBytes(random);
        this.processId = HexFormat.of().formatHex(random);
        for (Lane lane : Lane.values()) {
            lanes.put(lane, new LaneQueue());
        }
        this.existing = folder.listWaiting(); // read before this process writes: an earlier process has left these files
        this.scheduler = new OutboxScheduler(this, folder);
    }

    /**
     * Opens an outbox in a sub-folder that no other process uses.
     *
     * @throws IOException if the folder cannot be used
     */
    public static Outbox open(OutboxLimits limits, PublisherMetrics metrics) throws IOException {
        return new Outbox(limits, metrics, OutboxFolder.claim(limits.folder()));
    }

    /** Starts to take over the events of ended processes, now and every minute, and to write queued events from memory to disk, every 30 s. */
    public void start(SessionLookup lookup) {
        scheduler.start(lookup, existing);
    }

    /**
     * Stores events of one lane on disk, or in memory if the disk is full, failing or slower than the sign-out limit.
     *
     * @return the entry; null if the events are lost, because the memory is full too, or the outbox is stopped
     */
    public OutboxEntry prepare(List<OutgoingEvent> events) {
        OutboxEntry entry = OutboxEntry.create(events, System.currentTimeMillis(), processId, entryNumber.getAndIncrement());
        String error = "the outbox is full: correct the error with which publishing fails, or raise outbox-max-events and outbox-max-bytes";
        boolean fits = disk.tryReserve(entry);
        if (fits) {
            error = writer.write(entry, OutboxFolder.PENDING);
            if (error == null) {
                return entry;
            }
            disk.release(entry);
        }
        if (!stopped && memory.tryReserve(entry)) {
            if (throttle.tryAcquire(fits ? "disk" : "full")) {
                LOG.error("notifier: events are kept in memory alone, and are lost if this process ends before the disk accepts them: {}", error);
            }
            return entry;
        }
        reportLoss(events, error);
        return null;
    }

    /** Queues the events of an entry: their sessions have ended. */
    public void commit(OutboxEntry entry) {
        scheduler.execute(() -> enqueue(entry));
    }

    /** Removes an entry: its sessions live. */
    public void rollBack(OutboxEntry entry) {
        scheduler.execute(() -> remove(entry));
    }

    /**
     * Looks up in a separate transaction which sessions have ended, queues their events, and removes the others.
     *
     * @param isFinal whether the transaction has certainly ended in the database. If not, and sessions live, they are looked up again after 5 s.
     */
    public void lookUp(OutboxEntry entry, boolean isFinal) {
        scheduler.lookUp(entry, isFinal);
    }

    /** Returns the queue of a lane. */
    public LaneQueue lane(Lane lane) {
        return lanes.get(lane);
    }

    /**
     * Returns the events of an entry, with null in place of each invalid line; a single null for a file that is not trusted.
     *
     * @throws IOException if the file cannot be read now
     */
    public List<OutgoingEvent> read(OutboxEntry entry) throws IOException {
        List<OutgoingEvent> inMemory = entry.inMemory();
        if (inMemory != null) {
            return inMemory;
        }
        byte[] content;
        try {
            content = Files.readAllBytes(OutboxFolder.requireTrusted(entry.file()));
        } catch (OutboxFolder.UntrustedPathException untrusted) {
            LOG.error("notifier: {}", untrusted.toString());
            return Collections.singletonList(null);
        }
        List<OutgoingEvent> events = new ArrayList<>();
        for (String line : new String(content, StandardCharsets.UTF_8).split("\n")) {
            try {
                events.add(OutgoingEvent.parse(line));
            } catch (IOException invalid) {
                events.add(null);
            }
        }
        return events;
    }

    /** Removes an entry whose events are all published. */
    public void removePublished(OutboxEntry entry) {
        lanes.get(entry.lane()).remove(entry);
        remove(entry);
    }

    /**
     * Sets an entry aside for inspection: renames its file to this suffix, or writes it on another thread if the entry is only in memory.
     * Failures are logged. A file that cannot be renamed is queued again by the next process.
     */
    public void setAside(OutboxEntry entry, String suffix) {
        lanes.get(entry.lane()).remove(entry);
        Path file = entry.finishAside(suffix);
        if (file == null) {
            writer.setAside(entry, () -> memory.release(entry)); // it counts until its write has ended, so that a hanging disk cannot fill the memory
            return;
        }
        disk.release(entry);
        try {
            folder.rename(file, entry.name(), suffix);
        } catch (IOException failure) {
            LOG.error("notifier: {} cannot be renamed to {}: {}", entry.name(), suffix, failure.toString());
        }
    }

    /** Sets an entry aside whose valid events need not be published from it, because of its invalid lines. */
    void setAsideInvalid(OutboxEntry entry, int invalidCount) {
        metrics.onRefused(invalidCount);
        LOG.error("notifier: {} invalid lines in {} can never be published, and are set aside as .refused", invalidCount, entry.name());
        setAside(entry, ".refused");
    }

    /** Handles an unreadable entry. If its file was removed, its events are lost. Otherwise it is queued again after a minute. */
    public void onUnreadable(OutboxEntry entry, IOException failure) {
        lanes.get(entry.lane()).remove(entry);
        if (OutboxFolder.isRemoved(entry.file(), failure)) {
            onFileRemoved(entry);
            return;
        }
        if (throttle.tryAcquire("read")) {
            LOG.error("notifier: {} cannot be read, and is tried again in a minute: {}", entry.name(), failure.toString());
        }
        scheduler.retryLater(() -> lanes.get(entry.lane()).add(entry));
    }

    /** Returns whether an entry is older than the setting permits. */
    public boolean isExpired(OutboxEntry entry) {
        return entry.writtenAt() > 0 && System.currentTimeMillis() - entry.writtenAt() > limits.maxAge().toMillis();
    }

    @Override
    public long pendingCount() {
        return disk.eventCount() + memory.eventCount();
    }

    @Override
    public long pendingInMemoryCount() {
        return memory.eventCount();
    }

    @Override
    public double oldestAgeSeconds() {
        long oldest = lanes.values().stream().mapToLong(LaneQueue::oldestWrittenAt).filter(each -> each > 0).min().orElse(0);
        return oldest == 0 ? 0 : Math.max(0, System.currentTimeMillis() - oldest) / 1000.0;
    }

    /** Stops the background tasks. Waits up to a second until committed events are in their queues, so call it before the lanes stop. */
    public void stopBackgroundTasks() {
        scheduler.close();
    }

    /**
     * Stops the outbox; its lanes must have stopped. Writes queued events from memory to disk, if the disk accepts them now. Keeps the
     * folder until the process ends, so that a sign-out in progress can still write its event, which the next process publishes.
     */
    public void stop() {
        stopped = true;
        scheduler.close();
        saveMemory();
        writer.finishSettingAside();
        long lost = memory.eventCount();
        if (lost > 0) {
            metrics.onLost((int) lost);
            LOG.error("notifier: {} events were in memory alone, and are lost with this process", lost);
        }
    }

    /** Stops the outbox and releases its folder. */
    @Override
    public void close() {
        stop();
        writer.close();
        try {
            folder.close();
        } catch (IOException failure) {
            LOG.warn("notifier: {}", failure.toString());
        }
    }

    /** Queues an entry whose sessions have ended. */
    void enqueue(OutboxEntry entry) {
        Path file = entry.file();
        metrics.onWritten(entry.eventCount(), file != null);
        try {
            if (file != null) {
                entry.onRenamed(folder.rename(file, entry.name(), OutboxFolder.READY));
            }
        } catch (IOException failure) { // it is published from where it is; after a restart it is looked up
            LOG.warn("notifier: {} cannot be renamed: {}", entry.name(), failure.toString());
        }
        lanes.get(entry.lane()).add(entry);
    }

    /** Removes an entry with its file. */
    void remove(OutboxEntry entry) {
        Path file = entry.finish();
        release(entry);
        try {
            if (file != null) {
                OutboxFolder.remove(file);
            }
        } catch (IOException failure) {
            if (throttle.tryAcquire("remove")) {
                LOG.error("notifier: {} cannot be removed, and is published again after a restart: {}", entry.name(), failure.toString());
            }
        }
    }

    private void release(OutboxEntry entry) {
        (entry.file() == null ? memory : disk).release(entry);
    }

    /** Forgets an entry whose file another program has removed, and counts its unpublished events as lost. */
    void onFileRemoved(OutboxEntry entry) {
        entry.finish();
        release(entry);
        int lostCount = entry.eventCount() - entry.completed().cardinality();
        metrics.onLost(lostCount);
        if (lossThrottle.tryAcquire("removed")) {
            LOG.error("notifier: {} is LOST, with {} events; no client is notified: its file was removed from the outbox", entry.name(), lostCount);
        }
    }

    /** Counts the entry of an ended process, even beyond the limits. */
    void onAdopted(OutboxEntry entry) {
        disk.reserve(entry);
    }

    /** Creates an entry with some of the events of another, and with its time and place: on disk or in memory. Returns null if its file cannot be written now. */
    OutboxEntry createPart(OutboxEntry whole, List<OutgoingEvent> events) {
        OutboxEntry part = OutboxEntry.create(events, whole.writtenAt(), processId, entryNumber.getAndIncrement());
        if (whole.file() == null) {
            memory.reserve(part);
        } else if (writer.write(part, OutboxFolder.READY) == null) {
            disk.reserve(part);
        } else {
            return null;
        }
        return part;
    }

    /** Writes the entries that are only in memory, if the disk accepts files again. */
    void saveMemory() {
        List<OutboxEntry> unsaved = lanes.values().stream().flatMap(each -> each.inMemory().stream()).toList();
        if (!writer.isHealthy() && !writer.probe()) {
            return;
        }
        for (OutboxEntry entry : unsaved) {
            if (!entry.tryResumeFile()) {
                continue;
            }
            if (!disk.tryReserve(entry)) {
                continue; // a smaller entry may fit, or one of the other lane
            }
            if (writer.write(entry, OutboxFolder.READY) != null) {
                disk.release(entry);
                return;
            }
            if (entry.file() == null) { // published or set aside meanwhile
                disk.release(entry);
                continue;
            }
            memory.release(entry);
        }
    }

    private void reportLoss(List<OutgoingEvent> events, String error) {
        metrics.onLost(events.size());
        if (lossThrottle.tryAcquire("lost")) {
            LOG.error("notifier: event {} is LOST, with {} other events; their clients are not notified: {}", events.get(0).id(), events.size() - 1, error);
        }
    }
}
