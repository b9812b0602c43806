package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.SessionKey;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import dev.notifier.publisher.monitoring.LogThrottle;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.jboss.logging.Logger;

/** Background work: renames, looks up whether sessions are gone, takes over the files of dead processes. */
final class OutboxWorker implements AutoCloseable {
    private static final Logger LOG = Logger.getLogger(OutboxWorker.class);
    private static final long DISK_SECONDS = 30;
    private static final long MINUTE = 60;
    private static final long LOOK_UP_SECONDS = 10;
    private static final long SETTLES_SECONDS = 5;

    private final ScheduledExecutorService files = Executors.newSingleThreadScheduledExecutor(new DaemonThreadFactory("notifier-outbox"));
    private final Map<Lane, ScheduledExecutorService> lookUps = new EnumMap<>(Lane.class);
    private final Outbox outbox;
    private final OutboxFolder folder;
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));
    private volatile SessionLookup lookUp;

    OutboxWorker(Outbox outbox, OutboxFolder folder) {
        this.outbox = outbox;
        this.folder = folder;
        for (Lane lane : Lane.values()) { // nobody waits for a mass logout
            lookUps.put(lane, Executors.newSingleThreadScheduledExecutor(new DaemonThreadFactory("notifier-look-up-" + lane.word())));
        }
    }

    /** @param left what an earlier process left in this folder */
    void start(SessionLookup how, List<Path> left) {
        lookUp = how;
        soon(() -> take(folder, left));
        files.scheduleWithFixedDelay(() -> guarded(this::takeOver), 0, MINUTE, TimeUnit.SECONDS);
        files.scheduleWithFixedDelay(() -> guarded(outbox::saveMemory), DISK_SECONDS, DISK_SECONDS, TimeUnit.SECONDS);
    }

    /** Run a task on the keeper's thread, in order. */
    void soon(Task task) {
        try {
            files.execute(() -> guarded(task));
        } catch (RejectedExecutionException closed) {
            guarded(task); // Keycloak is stopping: nobody else does it
        }
    }

    void inAMinute(Task task) {
        files.schedule(() -> guarded(task), MINUTE, TimeUnit.SECONDS);
    }

    /** @param settled whether the database has finished its transaction: otherwise live sessions are looked up once more. */
    void lookUp(OutboxEntry entry, boolean settled) {
        lookUpIn(0, entry, settled);
    }

    private void lookUpIn(long seconds, OutboxEntry entry, boolean settled) {
        try {
            lookUps.get(entry.lane()).schedule(() -> guarded(() -> settle(entry, settled)), seconds, TimeUnit.SECONDS);
        } catch (RejectedExecutionException closed) {
            LOG.debugf("notifier: %s is looked up after the next start", entry.name());
        }
    }

    private void takeOver() throws IOException {
        for (OutboxFolder orphan : folder.orphans()) {
            try (orphan) {
                take(orphan, orphan.left());
                orphan.sync();
            }
        }
    }

    /** Queue the files of this process's folder, or of a dead process's. */
    private void take(OutboxFolder from, List<Path> left) throws IOException {
        int taken = 0;
        List<Path> unreadable = new ArrayList<>();
        for (Path file : left) {
            String whole = file.getFileName().toString();
            String ending = whole.endsWith(OutboxFolder.PENDING) ? OutboxFolder.PENDING : OutboxFolder.READY;
            String name = whole.substring(0, whole.length() - ending.length());
            Path ours = from == folder ? file : from.moved(file, folder, whole);
            OutboxEntry entry;
            try {
                entry = entry(ours, name);
            } catch (IOException failed) { // such as a volume that is gone for a moment: the others go first
                if (!isDeleted(ours, failed)) {
                    unreadable.add(ours);
                }
                report(failed);
                continue;
            }
            outbox.found(entry);
            taken += entry.events();
            if (ending.equals(OutboxFolder.PENDING)) {
                lookUp(entry, false);
            } else {
                outbox.lane(entry.lane()).add(entry);
            }
        }
        if (!unreadable.isEmpty()) {
            inAMinute(() -> take(folder, unreadable));
        }
        if (taken > 0) {
            folder.sync();
            LOG.infof("notifier: %d events that an earlier process left are taken up", taken);
        }
    }

    private OutboxEntry entry(Path file, String name) throws IOException {
        OutboxEntry entry = OutboxEntry.found(file, name, OutboxFolder.size(file));
        if (entry != null) {
            return entry;
        }
        OutboxEntry foreign = OutboxEntry.foreign(file, name, Lane.EVENTS, 1, OutboxFolder.size(file));
        List<OutgoingEvent> read = outbox.read(foreign);
        OutgoingEvent first = read.stream().filter(Objects::nonNull).findFirst().orElse(null);
        return first == null ? foreign : OutboxEntry.foreign(file, name, first.lane(), read.size(), OutboxFolder.size(file));
    }

    /** Publish those of its endings whose sessions are gone. */
    private void settle(OutboxEntry entry, boolean settled) throws IOException {
        List<OutgoingEvent> events;
        try {
            events = outbox.read(entry);
        } catch (IOException failed) { // such as a volume that is gone for a moment
            if (isDeleted(entry.file(), failed)) {
                throw failed;
            }
            lookUpIn(LOOK_UP_SECONDS, entry, settled);
            report(failed);
            return;
        }
        Set<SessionKey> sessions = new LinkedHashSet<>();
        events.stream().filter(Objects::nonNull).map(OutgoingEvent::session).filter(Objects::nonNull).forEach(sessions::add);
        Set<SessionKey> living;
        try {
            living = sessions.isEmpty() ? Set.of() : lookUp.living(sessions);
        } catch (Exception failed) {
            if (throttle.tryAcquire("look-up")) {
                LOG.warnf("notifier: whether sessions are gone cannot be looked up now, it is tried again: %s",
                    failed.getClass().getName()); // its text may name the database, with a password
            }
            lookUpIn(LOOK_UP_SECONDS, entry, settled);
            return;
        }
        if (!settled && !living.isEmpty()) {
            lookUpIn(SETTLES_SECONDS, entry, true);
            return;
        }
        List<OutgoingEvent> gone = events.stream().filter(each -> each == null || each.session() == null || !living.contains(each.session())).toList();
        if (gone.size() == events.size()) {
            soon(() -> outbox.enqueue(entry));
        } else if (gone.isEmpty()) {
            soon(() -> outbox.forget(entry));
        } else {
            divide(entry, gone.stream().filter(Objects::nonNull).toList());
        }
    }

    /** Whether the file alone is gone, and not its folder, too. */
    private static boolean isDeleted(Path file, IOException failed) {
        return failed instanceof NoSuchFileException && Files.isDirectory(file.getParent());
    }

    private void divide(OutboxEntry entry, List<OutgoingEvent> gone) {
        OutboxEntry part = gone.isEmpty() ? null : outbox.part(entry, gone);
        if (part == null && !gone.isEmpty()) {
            lookUpIn(LOOK_UP_SECONDS, entry, true);
            return;
        }
        soon(() -> {
            if (part != null) {
                outbox.enqueue(part);
            }
            outbox.forget(entry);
        });
    }

    private void guarded(Task task) {
        try {
            task.run();
        } catch (Exception failed) { // the thread goes on
            report(failed);
        }
    }

    private void report(Exception failed) {
        if (throttle.tryAcquire(failed.toString())) {
            LOG.errorf("notifier: the outbox %s: %s", folder.path(), failed);
        }
    }

    /** Finish the started tasks. */
    @Override
    public void close() {
        lookUps.values().forEach(ScheduledExecutorService::shutdownNow);
        files.shutdown();
        try {
            files.awaitTermination(1, TimeUnit.SECONDS);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }

    /** Something with the disk. */
    interface Task {
        void run() throws IOException;
    }
}
