package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.SessionKey;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import dev.notifier.publisher.monitoring.LogThrottle;
import java.io.IOException;
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
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Runs the outbox's background tasks: queues and removes entries, looks up sessions, and takes over the files of ended processes. */
final class OutboxScheduler implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger("dev.notifier.publisher.outbox.Keeper");
    private static final long SAVE_INTERVAL_SECONDS = 30;
    private static final long TAKEOVER_INTERVAL_SECONDS = 60;
    private static final long READ_RETRY_SECONDS = 60;
    private static final long LOOKUP_RETRY_SECONDS = 10;
    private static final long COMMIT_GRACE_SECONDS = 5;

    private final ScheduledExecutorService fileThread = Executors.newSingleThreadScheduledExecutor(new DaemonThreadFactory("notifier-outbox"));
    private final Map<Lane, ScheduledExecutorService> lookupThreads = new EnumMap<>(Lane.class);
    private final Outbox outbox;
    private final OutboxFolder folder;
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));
    private volatile SessionLookup lookup;

    OutboxScheduler(Outbox outbox, OutboxFolder folder) {
        this.outbox = outbox;
        this.folder = folder;
        for (Lane lane : Lane.values()) { // a thread for each lane, so that no sign-out waits for a mass logout
            lookupThreads.put(lane, Executors.newSingleThreadScheduledExecutor(new DaemonThreadFactory("notifier-look-up-" + lane.label())));
        }
    }

    /** @param existing the files that an earlier process left in this folder */
    void start(SessionLookup sessionLookup, List<Path> existing) {
        lookup = sessionLookup;
        execute(() -> adopt(folder, existing));
        fileThread.scheduleWithFixedDelay(() -> runGuarded(this::takeOver), 0, TAKEOVER_INTERVAL_SECONDS, TimeUnit.SECONDS);
        fileThread.scheduleWithFixedDelay(() -> runGuarded(outbox::saveMemory), SAVE_INTERVAL_SECONDS, SAVE_INTERVAL_SECONDS, TimeUnit.SECONDS);
    }

    /** Runs a task on the file thread, after those before it; on the caller's thread after {@link #close}. */
    void execute(Task task) {
        try {
            fileThread.execute(() -> runGuarded(task));
        } catch (RejectedExecutionException closed) {
            runGuarded(task);
        }
    }

    /** Runs a task on the file thread after a minute. */
    void retryLater(Task task) {
        try {
            fileThread.schedule(() -> runGuarded(task), READ_RETRY_SECONDS, TimeUnit.SECONDS);
        } catch (RejectedExecutionException closed) {
            LOG.debug("notifier: a file of the outbox is read again after the next start");
        }
    }

    /**
     * Looks up the sessions of an entry. Queues the events of ended sessions and removes the others.
     *
     * @param isFinal whether the transaction has certainly ended in the database. If not, and sessions live, they are looked up again after 5 s.
     */
    void lookUp(OutboxEntry entry, boolean isFinal) {
        scheduleLookup(0, entry, isFinal);
    }

    private void scheduleLookup(long delaySeconds, OutboxEntry entry, boolean isFinal) {
        try {
            lookupThreads.get(entry.lane()).schedule(() -> runGuarded(() -> resolve(entry, isFinal)), delaySeconds, TimeUnit.SECONDS);
        } catch (RejectedExecutionException closed) {
            LOG.debug("notifier: {} is looked up after the next start", entry.name());
        }
    }

    private void takeOver() throws IOException {
        for (OutboxFolder orphan : folder.claimOrphans()) {
            try (orphan) {
                adopt(orphan, orphan.listWaiting());
                orphan.sync();
            }
        }
    }

    /** Moves files of an ended process into this folder if they are in another. Queues them, or looks up their sessions first. */
    private void adopt(OutboxFolder from, List<Path> files) throws IOException {
        int eventCount = 0;
        List<Path> unreadable = new ArrayList<>();
        for (Path file : files) {
            String fileName = file.getFileName().toString();
            boolean isPending = fileName.endsWith(OutboxFolder.PENDING);
            String name = fileName.substring(0, fileName.length() - (isPending ? OutboxFolder.PENDING : OutboxFolder.READY).length());
            Path adopted;
            try {
                adopted = from == folder ? file : from.move(file, folder, fileName);
            } catch (IOException failure) { // it stays in its folder, which is taken over again in a minute
                report(failure);
                continue;
            }
            OutboxEntry entry;
            try {
                entry = createEntry(adopted, name);
            } catch (IOException failure) { // such as a volume that is unmounted for a moment: tried again after a minute
                if (!OutboxFolder.isRemoved(adopted, failure)) {
                    unreadable.add(adopted);
                }
                report(failure);
                continue;
            }
            outbox.onAdopted(entry);
            eventCount += entry.eventCount();
            if (isPending) {
                lookUp(entry, false);
            } else {
                outbox.lane(entry.lane()).add(entry);
            }
        }
        if (!unreadable.isEmpty()) {
            retryLater(() -> adopt(folder, unreadable));
        }
        if (eventCount > 0) {
            folder.sync();
            LOG.info("notifier: {} events of an ended process are taken over", eventCount);
        }
    }

    private OutboxEntry createEntry(Path file, String name) throws IOException {
        long byteCount = OutboxFolder.size(file);
        OutboxEntry entry = OutboxEntry.fromFile(file, name, byteCount);
        if (entry != null) {
            return entry;
        }
        OutboxEntry foreign = OutboxEntry.fromForeignFile(file, name, Lane.EVENTS, 1, byteCount);
        List<OutgoingEvent> events = outbox.read(foreign);
        OutgoingEvent first = events.stream().filter(Objects::nonNull).findFirst().orElse(null);
        return first == null ? foreign : OutboxEntry.fromForeignFile(file, name, first.lane(), events.size(), byteCount);
    }

    private void resolve(OutboxEntry entry, boolean isFinal) throws IOException {
        List<OutgoingEvent> events;
        try {
            events = outbox.read(entry);
        } catch (IOException failure) { // such as a volume that is unmounted for a moment
            if (OutboxFolder.isRemoved(entry.file(), failure)) {
                outbox.onFileRemoved(entry);
                return;
            }
            scheduleLookup(LOOKUP_RETRY_SECONDS, entry, isFinal);
            report(failure);
            return;
        }
        Set<SessionKey> sessions = new LinkedHashSet<>();
        events.stream().filter(Objects::nonNull).map(OutgoingEvent::session).filter(Objects::nonNull).forEach(sessions::add);
        Set<SessionKey> living;
        try {
            living = sessions.isEmpty() ? Set.of() : lookup.findLiving(sessions);
        } catch (Exception failure) {
            if (throttle.tryAcquire("look-up")) {
                LOG.warn("notifier: sessions cannot be looked up, and their events wait; the look-up is repeated every 10 s: {}",
                        failure.getClass().getName()); // its message may contain the database's URL with a password
            }
            scheduleLookup(LOOKUP_RETRY_SECONDS, entry, isFinal);
            return;
        }
        if (!isFinal && !living.isEmpty()) {
            scheduleLookup(COMMIT_GRACE_SECONDS, entry, true);
            return;
        }
        List<OutgoingEvent> ended = events.stream().filter(each -> each == null || each.session() == null || !living.contains(each.session())).toList();
        if (ended.size() == events.size()) {
            execute(() -> outbox.enqueue(entry));
        } else if (ended.isEmpty()) {
            execute(() -> outbox.remove(entry));
        } else {
            split(entry, ended);
        }
    }

    /** Replaces an entry by one with the events of ended sessions. Sets the entry aside if it has invalid lines, which are null. */
    private void split(OutboxEntry entry, List<OutgoingEvent> endedOrInvalid) {
        List<OutgoingEvent> ended = endedOrInvalid.stream().filter(Objects::nonNull).toList();
        OutboxEntry part = ended.isEmpty() ? null : outbox.createPart(entry, ended);
        if (part == null && !ended.isEmpty()) {
            scheduleLookup(LOOKUP_RETRY_SECONDS, entry, true);
            return;
        }
        execute(() -> {
            if (part != null) {
                outbox.enqueue(part);
            }
            int invalidCount = endedOrInvalid.size() - ended.size();
            if (invalidCount > 0) {
                outbox.setAsideInvalid(entry, invalidCount);
            } else {
                outbox.remove(entry);
            }
        });
    }

    /** Logs the failure of a task. If a repeated task throws, its executor does not run it again. */
    private void runGuarded(Task task) {
        try {
            task.run();
        } catch (Exception failure) {
            report(failure);
        }
    }

    private void report(Exception failure) {
        if (throttle.tryAcquire(failure.toString())) {
            LOG.error("notifier: the outbox {}: {}", folder.path(), failure.toString());
        }
    }

    /** Cancels look-ups and repeated tasks. Waits up to a second for tasks that are queued. */
    @Override
    public void close() {
        lookupThreads.values().forEach(ScheduledExecutorService::shutdownNow);
        fileThread.shutdown();
        try {
            fileThread.awaitTermination(1, TimeUnit.SECONDS);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }

    /** A task that uses the disk. */
    interface Task {
        void run() throws IOException;
    }
}
