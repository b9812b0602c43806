package dev.notifier.keycloak.outbox;

import dev.notifier.keycloak.event.Ending;
import dev.notifier.keycloak.event.Lane;
import dev.notifier.keycloak.settings.Settings.OutboxLimits;
import dev.notifier.keycloak.watch.Seldom;
import dev.notifier.keycloak.watch.Tally;
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
    private final Tally tally;
    private final OutboxFolder folder;
    private final Room disk;
    private final Room memory = Room.inMemory(MOST_IN_MEMORY);
    private final Writers writers;
    private final Keeper keeper;
    private final Map<Lane, LaneQueue> lanes = new EnumMap<>(Lane.class);
    private final String process;
    private final AtomicLong number = new AtomicLong();
    private final Seldom aMinute = new Seldom(Duration.ofMinutes(1));
    private final List<Path> left;
    private volatile boolean closed;
    private final Seldom aSecond = new Seldom(Duration.ofSeconds(1));

    private Outbox(OutboxLimits limits, Tally tally, OutboxFolder folder) throws IOException {
        this.limits = limits;
        this.tally = tally;
        this.folder = folder;
        this.disk = Room.onDisk(limits.maxEvents(), limits.maxBytes());
        this.writers = new Writers(folder, limits.signOutLimit());
        byte[] random = new byte[PROCESS_BYTES];
        new SecureRandom().nextBytes(random);
        this.process = HexFormat.of().formatHex(random);
        for (Lane lane : Lane.values()) {
            lanes.put(lane, new LaneQueue());
        }
        this.left = folder.left(); // before anything is written: what is there now is an earlier process's
        this.keeper = new Keeper(this, folder);
    }

    /**
     * Claim a folder.
     *
     * @throws IOException if the folder cannot be used
     */
    public static Outbox open(OutboxLimits limits, Tally tally) throws IOException {
        return new Outbox(limits, tally, OutboxFolder.claim(limits.folder()));
    }

    /** Take up what earlier processes left, now and every minute. */
    public void start(LookUp lookUp) {
        keeper.start(lookUp, left);
    }

    /** Write endings of one lane before their sessions are deleted. Returns within the limit. Null if there was no room anywhere. */
    public Slip prepare(List<Ending> endings) {
        Slip slip = Slip.of(endings, System.currentTimeMillis(), process, number.getAndIncrement());
        String why = "the outbox is full: bring the broker back, or raise outbox-max-events and outbox-max-bytes";
        boolean room = disk.take(slip);
        if (room) {
            why = writers.write(slip, OutboxFolder.PENDING);
            if (why == null) {
                return slip;
            }
            disk.give(slip);
        }
        if (!closed && memory.take(slip)) {
            if (aMinute.allows(room ? "the disk takes nothing" : "full")) {
                LOG.errorf("notifier: events are kept in memory alone, and are lost if this process ends: %s", why);
            }
            return slip;
        }
        lose(endings, why);
        return null;
    }

    /** The sessions are gone. */
    public void happened(Slip slip) {
        keeper.soon(() -> enqueue(slip));
    }

    /** The sessions live: the transaction was rolled back. */
    public void undone(Slip slip) {
        keeper.soon(() -> forget(slip));
    }

    /**
     * Look up in a separate transaction which sessions are gone.
     *
     * @param settled whether the database has finished its transaction
     */
    public void lookUp(Slip slip, boolean settled) {
        keeper.lookUp(slip, settled);
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
    public List<Ending> read(Slip slip) throws IOException {
        List<Ending> kept = slip.inMemory();
        if (kept != null) {
            return kept;
        }
        byte[] content;
        try {
            content = Files.readAllBytes(OutboxFolder.requireOurs(slip.file()));
        } catch (OutboxFolder.NotOurs refused) {
            LOG.errorf("notifier: %s", refused);
            return Collections.singletonList(null);
        }
        List<Ending> found = new ArrayList<>();
        for (String line : new String(content, StandardCharsets.UTF_8).split("\n")) {
            try {
                found.add(Ending.of(line));
            } catch (IOException wrong) {
                found.add(null);
            }
        }
        return found;
    }

    /** All its events are published. */
    public void published(Slip slip) {
        lanes.get(slip.lane()).remove(slip);
        forget(slip);
    }

    /** It is set aside under another ending, and never published. */
    public void setAside(Slip slip, String ending) {
        lanes.get(slip.lane()).remove(slip);
        Path file = slip.finish();
        give(slip);
        try {
            if (file != null) {
                folder.renamed(file, slip.name(), ending);
            }
        } catch (IOException failed) {
            LOG.errorf("notifier: %s cannot be renamed to %s: %s", slip.name(), ending, failed);
        }
    }

    /** It cannot be read now: others go first, and it is tried again a minute later. */
    public void later(Slip slip) {
        lanes.get(slip.lane()).remove(slip);
        keeper.inAMinute(() -> lanes.get(slip.lane()).add(slip));
    }

    /** True if it is older than events may become. */
    public boolean isTooOld(Slip slip) {
        return slip.millis() > 0 && System.currentTimeMillis() - slip.millis() > limits.maxAge().toMillis();
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
        keeper.close();
    }

    /**
     * Nobody publishes any more. What is in memory alone is written, if the disk takes it now. A sign-out that is still under
     * way is written, too: the folder is ours until the process is gone, and the next one publishes it.
     */
    public void retire() {
        closed = true;
        keeper.close();
        saveMemory();
        long lost = memory.events();
        if (lost > 0) {
            tally.lost((int) lost);
            LOG.errorf("notifier: %d events were in memory alone, and are lost with this process", lost);
        }
    }

    /** Retire, and give the folder up. */
    @Override
    public void close() {
        retire();
        writers.close();
        try {
            folder.close();
        } catch (IOException failed) {
            LOG.warnf("notifier: %s", failed);
        }
    }

    /** The sessions of a slip are gone: it may be published. */
    void enqueue(Slip slip) {
        Path file = slip.file();
        tally.written(slip.events(), file != null);
        try {
            if (file != null) {
                slip.moved(folder.renamed(file, slip.name(), OutboxFolder.READY));
            }
        } catch (IOException failed) { // published from where it is; after a restart it is looked up
            LOG.warnf("notifier: %s cannot be renamed: %s", slip.name(), failed);
        }
        lanes.get(slip.lane()).add(slip);
    }

    /** It is over with this slip. */
    void forget(Slip slip) {
        Path file = slip.finish();
        give(slip);
        try {
            if (file != null) {
                OutboxFolder.remove(file);
            }
        } catch (IOException failed) {
            if (aMinute.allows("remove")) {
                LOG.errorf("notifier: %s cannot be removed, and is published again after a restart: %s", slip.name(), failed);
            }
        }
    }

    private void give(Slip slip) {
        (slip.file() == null ? memory : disk).give(slip);
    }

    /** A file that an earlier process left is counted, however many there are. */
    void found(Slip slip) {
        disk.add(slip);
    }

    /** A slip of some of the endings of another, in its place in time. Null if it cannot be written now. */
    Slip part(Slip whole, List<Ending> endings) {
        Slip part = Slip.of(endings, whole.millis(), process, number.getAndIncrement());
        if (whole.file() == null) {
            memory.add(part);
        } else if (writers.write(part, OutboxFolder.READY) == null) {
            disk.add(part);
        } else {
            return null;
        }
        return part;
    }

    /** The disk is tried again, and takes over what is in memory alone. */
    void saveMemory() {
        List<Slip> kept = lanes.values().stream().flatMap(each -> each.inMemory().stream()).toList();
        if (!writers.isWell() && !writers.tryAgain()) {
            return;
        }
        for (Slip slip : kept) {
            if (!disk.take(slip)) {
                continue; // a sign-out may fit where a mass logout does not
            }
            slip.resume();
            if (writers.write(slip, OutboxFolder.READY) != null) {
                disk.give(slip);
                return;
            }
            if (slip.file() == null) { // published meanwhile
                disk.give(slip);
                continue;
            }
            memory.give(slip);
        }
    }

    private void lose(List<Ending> endings, String why) {
        tally.lost(endings.size());
        if (aSecond.allows("lost")) {
            LOG.errorf("notifier: event %s is LOST, %d in all; no client is notified: %s", endings.get(0).id(), endings.size(), why);
        }
    }
}
