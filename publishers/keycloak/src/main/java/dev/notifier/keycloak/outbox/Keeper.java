package dev.notifier.keycloak.outbox;

import dev.notifier.keycloak.event.Ending;
import dev.notifier.keycloak.event.Lane;
import dev.notifier.keycloak.event.SessionKey;
import dev.notifier.keycloak.watch.Daemons;
import dev.notifier.keycloak.watch.Seldom;
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
final class Keeper implements AutoCloseable {
    private static final Logger LOG = Logger.getLogger(Keeper.class);
    private static final long DISK_SECONDS = 30;
    private static final long MINUTE = 60;
    private static final long LOOK_UP_SECONDS = 10;
    private static final long SETTLES_SECONDS = 5;

    private final ScheduledExecutorService files = Executors.newSingleThreadScheduledExecutor(Daemons.named("notifier-outbox"));
    private final Map<Lane, ScheduledExecutorService> lookUps = new EnumMap<>(Lane.class);
    private final Outbox outbox;
    private final OutboxFolder folder;
    private final Seldom aMinute = new Seldom(Duration.ofMinutes(1));
    private volatile LookUp lookUp;

    Keeper(Outbox outbox, OutboxFolder folder) {
        this.outbox = outbox;
        this.folder = folder;
        for (Lane lane : Lane.values()) { // nobody waits for a mass logout
            lookUps.put(lane, Executors.newSingleThreadScheduledExecutor(Daemons.named("notifier-look-up-" + lane.word())));
        }
    }

    /** @param left what an earlier process left in this folder */
    void start(LookUp how, List<Path> left) {
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
    void lookUp(Slip slip, boolean settled) {
        lookUpIn(0, slip, settled);
    }

    private void lookUpIn(long seconds, Slip slip, boolean settled) {
        try {
            lookUps.get(slip.lane()).schedule(() -> guarded(() -> settle(slip, settled)), seconds, TimeUnit.SECONDS);
        } catch (RejectedExecutionException closed) {
            LOG.debugf("notifier: %s is looked up after the next start", slip.name());
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
            Slip slip;
            try {
                slip = slip(ours, name);
            } catch (IOException failed) { // such as a volume that is gone for a moment: the others go first
                if (!isDeleted(ours, failed)) {
                    unreadable.add(ours);
                }
                report(failed);
                continue;
            }
            outbox.found(slip);
            taken += slip.events();
            if (ending.equals(OutboxFolder.PENDING)) {
                lookUp(slip, false);
            } else {
                outbox.lane(slip.lane()).add(slip);
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

    private Slip slip(Path file, String name) throws IOException {
        Slip slip = Slip.found(file, name, OutboxFolder.size(file));
        if (slip != null) {
            return slip;
        }
        Slip foreign = Slip.foreign(file, name, Lane.EVENTS, 1, OutboxFolder.size(file));
        List<Ending> read = outbox.read(foreign);
        Ending first = read.stream().filter(Objects::nonNull).findFirst().orElse(null);
        return first == null ? foreign : Slip.foreign(file, name, first.lane(), read.size(), OutboxFolder.size(file));
    }

    /** Publish those of its endings whose sessions are gone. */
    private void settle(Slip slip, boolean settled) throws IOException {
        List<Ending> endings;
        try {
            endings = outbox.read(slip);
        } catch (IOException failed) { // such as a volume that is gone for a moment
            if (isDeleted(slip.file(), failed)) {
                throw failed;
            }
            lookUpIn(LOOK_UP_SECONDS, slip, settled);
            report(failed);
            return;
        }
        Set<SessionKey> sessions = new LinkedHashSet<>();
        endings.stream().filter(Objects::nonNull).map(Ending::session).filter(Objects::nonNull).forEach(sessions::add);
        Set<SessionKey> living;
        try {
            living = sessions.isEmpty() ? Set.of() : lookUp.living(sessions);
        } catch (Exception failed) {
            if (aMinute.allows("look-up")) {
                LOG.warnf("notifier: whether sessions are gone cannot be looked up now, it is tried again: %s",
                    failed.getClass().getName()); // its text may name the database, with a password
            }
            lookUpIn(LOOK_UP_SECONDS, slip, settled);
            return;
        }
        if (!settled && !living.isEmpty()) {
            lookUpIn(SETTLES_SECONDS, slip, true);
            return;
        }
        List<Ending> gone = endings.stream().filter(each -> each == null || each.session() == null || !living.contains(each.session())).toList();
        if (gone.size() == endings.size()) {
            soon(() -> outbox.enqueue(slip));
        } else if (gone.isEmpty()) {
            soon(() -> outbox.forget(slip));
        } else {
            divide(slip, gone.stream().filter(Objects::nonNull).toList());
        }
    }

    /** Whether the file alone is gone, and not its folder, too. */
    private static boolean isDeleted(Path file, IOException failed) {
        return failed instanceof NoSuchFileException && Files.isDirectory(file.getParent());
    }

    private void divide(Slip slip, List<Ending> gone) {
        Slip part = gone.isEmpty() ? null : outbox.part(slip, gone);
        if (part == null && !gone.isEmpty()) {
            lookUpIn(LOOK_UP_SECONDS, slip, true);
            return;
        }
        soon(() -> {
            if (part != null) {
                outbox.enqueue(part);
            }
            outbox.forget(slip);
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
        if (aMinute.allows(failed.toString())) {
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
