package dev.notifier.publisher.outbox;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.SessionKey;
import dev.notifier.publisher.monitoring.FailureReason;
import dev.notifier.publisher.monitoring.PendingEvents;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import dev.notifier.publisher.settings.PublisherSettings.OutboxLimits;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.RandomAccess;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class OutboxTest {
    @TempDir
    Path base;

    private final Counts counts = new Counts();
    private final List<Outbox> open = new ArrayList<>();
    private int maxEvents = 100;
    private Duration signOutLimit = Duration.ofSeconds(2);

    private Outbox outbox() throws IOException {
        Outbox made = Outbox.open(new OutboxLimits(base, maxEvents, 1 << 20, Duration.ofDays(30), signOutLimit), counts);
        open.add(made);
        return made;
    }

    @AfterEach
    void close() {
        open.forEach(Outbox::close);
    }

    /** One that is there already, with this mode whatever the umask. */
    private Path folder(String name, String mode) throws IOException {
        return Files.setPosixFilePermissions(Files.createDirectories(base.resolve(name)), PosixFilePermissions.fromString(mode));
    }

    private static SessionKey key(String id) {
        return new SessionKey("{\"id\":\"" + id + "\"}");
    }

    private static OutgoingEvent event(String id, Lane lane) {
        String json = "{\"id\":\"" + id + "\",\"iss\":\"https://i\",\"sid\":\"" + id + "\",\"clients\":[]}";
        return new OutgoingEvent(lane, id, key(id), json.getBytes(StandardCharsets.UTF_8));
    }

    private static List<OutgoingEvent> events(Lane lane, String... ids) {
        return Stream.of(ids).map(each -> event(each, lane)).toList();
    }

    private List<String> files() throws IOException {
        try (Stream<Path> found = Files.walk(base)) {
            return found.filter(Files::isRegularFile).map(each -> each.getFileName().toString()).filter(each -> !each.equals("lock")).sorted().toList();
        }
    }

    private List<String> waiting(Outbox outbox, Lane lane) throws Exception {
        List<String> ids = new ArrayList<>();
        for (OutboxEntry entry : outbox.lane(lane).oldest(1_000, 0)) {
            outbox.read(entry).forEach(each -> ids.add(each.id()));
        }
        return ids;
    }

    /** Waits for what can be seen, for ten seconds. */
    private static void until(BooleanSupplier seen) throws InterruptedException {
        long end = System.nanoTime() + 10_000_000_000L;
        while (!seen.getAsBoolean()) {
            assertTrue(System.nanoTime() < end, "it did not come");
            Thread.sleep(5);
        }
    }

    @Test
    void aFolderThatIsUnreadableForAMomentIsReadAgain() throws Exception {
        Outbox outbox = outbox();
        outbox.start(living());
        OutboxEntry entry = outbox.prepare(events(Lane.EVENTS, "a"));
        Path folder = entry.file().getParent();
        Files.move(folder, base.resolve("elsewhere"));
        outbox.lookUp(entry, true);
        Thread.sleep(500); // so that the look-up fails
        assertTrue(outbox.lane(Lane.EVENTS).isEmpty());
        Files.move(base.resolve("elsewhere"), folder);
        for (int tries = 0; tries < 300 && outbox.lane(Lane.EVENTS).isEmpty(); tries++) {
            Thread.sleep(50); // the look-up is repeated after ten seconds
        }
        assertEquals(List.of("a"), waiting(outbox, Lane.EVENTS));
    }

    private static SessionLookup living(String... ids) {
        return keys -> new HashSet<>(keys.stream().filter(Stream.of(ids).map(OutboxTest::key).toList()::contains).toList());
    }

    @Test
    void aPreparedEventIsOnDiskAndIsQueuedByTheCommit() throws Exception {
        Outbox outbox = outbox();
        OutboxEntry entry = outbox.prepare(events(Lane.EVENTS, "a"));
        assertTrue(files().get(0).endsWith(".pending"));
        assertTrue(waiting(outbox, Lane.EVENTS).isEmpty());
        outbox.commit(entry);
        until(() -> !outbox.lane(Lane.EVENTS).isEmpty());
        assertTrue(files().get(0).endsWith(".json"));
        assertEquals(List.of("a"), waiting(outbox, Lane.EVENTS));
        outbox.removePublished(entry);
        assertTrue(files().isEmpty());
        assertEquals(0, outbox.pendingCount());
    }

    @Test
    void othersCannotReadFiles() throws Exception {
        outbox().prepare(events(Lane.EVENTS, "a"));
        try (Stream<Path> found = Files.walk(base.resolve("0"))) {
            for (Path each : found.toList()) {
                assertEquals(Files.isDirectory(each) ? "rwx------" : "rw-------", PosixFilePermissions.toString(Files.getPosixFilePermissions(each)));
            }
        }
    }

    @Test
    void aRolledBackEventLeavesNothing() throws Exception {
        Outbox outbox = outbox();
        outbox.rollBack(outbox.prepare(events(Lane.EVENTS, "a")));
        until(() -> outbox.pendingCount() == 0);
        assertTrue(files().isEmpty());
        assertEquals(0, counts.written);
    }

    @Test
    void manyEventsShareAFileAndOnlyEndedSessionsArePublished() throws Exception {
        Outbox outbox = outbox();
        outbox.start(living("b"));
        outbox.lookUp(outbox.prepare(events(Lane.BULK, "a", "b", "c")), true);
        until(() -> !outbox.lane(Lane.BULK).isEmpty());
        assertEquals(List.of("a", "c"), waiting(outbox, Lane.BULK));
        until(() -> outbox.pendingCount() == 2);
        until(() -> filesQuietly().size() == 1); // a file is removed after it is counted out
        outbox.lookUp(outbox.prepare(events(Lane.BULK, "b")), true);
        until(() -> outbox.pendingCount() == 2);
        assertEquals(2, counts.written);
    }

    @Test
    void anOutboxOfAnEarlierPlugInIsTakenOver() throws Exception {
        Path kept = Path.of("src/test/resources/former_outbox");
        try (Stream<Path> files = Files.list(kept)) {
            for (Path file : files.toList()) {
                Files.copy(file, folder("0", "rwx------").resolve(file.getFileName()));
                for (String line : Files.readAllLines(file)) {
                    assertEquals(line + "\n", new String(OutgoingEvent.parse(line).toLine(), StandardCharsets.UTF_8), "the format is the same");
                }
            }
        }
        Set<String> lookedUp = ConcurrentHashMap.newKeySet();
        Outbox outbox = outbox();
        outbox.start(keys -> {
            keys.forEach(each -> lookedUp.add(each.json()));
            return Set.of(); // all sessions have ended
        });
        until(() -> waitingQuietly(outbox).size() == 2);
        assertEquals(List.of("6323dcc1a98e24409566a9ed260ca29b", "4a6bc3f6d2e8a17f68356db2e521c7e7"), waiting(outbox, Lane.EVENTS));
        assertEquals(List.of("7177ad4be3753c7e9641af82cc4c35d9", "505a4aee78f328642cde0895d3c250d8"), waiting(outbox, Lane.BULK));
        assertEquals(Set.of("{\"id\":\"sid-4\",\"created_on\":1790000004,\"offline\":true,\"client\":\"c-1\"}"), lookedUp);
        assertEquals(List.of(".json", ".json", ".json"), files().stream().map(each -> each.substring(each.lastIndexOf('.'))).toList());
    }

    @Test
    void theEventsOfAnEndedProcessAreTakenOverInOrder() throws Exception {
        Outbox dead = outbox();
        OutboxEntry first = dead.prepare(events(Lane.EVENTS, "first"));
        OutboxEntry pending = dead.prepare(events(Lane.EVENTS, "pending"));
        OutboxEntry alive = dead.prepare(events(Lane.EVENTS, "alive"));
        dead.commit(first);
        until(() -> !dead.lane(Lane.EVENTS).isEmpty());
        Files.writeString(base.resolve("0").resolve("1-half.part"), "{");
        open.remove(dead);
        dead.close(); // the lock goes as with the process
        Outbox next = outbox();
        next.start(living("alive"));
        until(() -> next.pendingCount() == 2 && waitingQuietly(next).size() == 2);
        assertEquals(List.of("first", "pending"), waiting(next, Lane.EVENTS));
        assertTrue(files().stream().allMatch(each -> each.endsWith(".json")));
        assertNotNull(pending);
        assertNotNull(alive);
    }

    @Test
    void aDeletionThatCommitsAfterTheKillIsFound() throws Exception {
        Outbox dead = outbox();
        dead.prepare(events(Lane.EVENTS, "alive"));
        dead.prepare(events(Lane.EVENTS, "going"));
        open.remove(dead);
        dead.close();
        Set<SessionKey> lookedUp = new HashSet<>();
        Outbox next = outbox();
        next.start(keys -> new HashSet<>(keys.stream().filter(each -> lookedUp.add(each) || each.equals(key("alive"))).toList()));
        until(() -> next.pendingCount() == 1 && waitingQuietly(next).size() == 1);
        assertEquals(List.of("going"), waiting(next, Lane.EVENTS));
    }

    private List<String> waitingQuietly(Outbox outbox) {
        try {
            return waiting(outbox, Lane.EVENTS);
        } catch (Exception moving) {
            return List.of();
        }
    }

    @Test
    void aSecondProcessHasAnotherFolderAndTakesOverTheFirst() throws Exception {
        Outbox one = outbox();
        Outbox two = outbox();
        assertTrue(Files.isDirectory(base.resolve("1")));
        OutboxEntry entry = one.prepare(events(Lane.EVENTS, "a"));
        one.commit(entry);
        until(() -> !one.lane(Lane.EVENTS).isEmpty());
        open.remove(one);
        one.close();
        two.start(living());
        until(() -> !two.lane(Lane.EVENTS).isEmpty());
        assertEquals(List.of("a"), waiting(two, Lane.EVENTS));
        assertTrue(Files.exists(base.resolve("1").resolve(entry.name() + ".json")));
    }

    @ParameterizedTest
    @ValueSource(strings = {"rwxrwxrwx", "rwx----w-"})
    void aFolderThatOthersCanWriteToIsSkipped(String mode) throws Exception {
        folder("0", mode);
        folder("1", "rwxr-xr-x"); // read access of others is allowed
        outbox();
        assertFalse(Files.exists(base.resolve("0").resolve("lock")));
        assertTrue(Files.exists(base.resolve("1").resolve("lock")));
    }

    @Test
    void aFolderThatThePodsGroupCanWriteToIsClaimed() throws Exception {
        folder("0", "rwxrwx---"); // by `fsGroup`, at each start
        outbox();
        assertTrue(Files.exists(base.resolve("0").resolve("lock")));
    }

    @Test
    void aFolderOfAnotherUserOrGroupIsSkipped() throws Exception {
        Path[] given = {folder("0", "rwxrwx---"), folder("1", "rwx------"), folder("2", "rwxrwxrwx")};
        if (!Files.getAttribute(given[0], "unix:uid").equals(0)) {
            return; // only root gives files away
        }
        Files.setAttribute(given[0], "unix:gid", 65534);
        Files.setAttribute(given[1], "unix:uid", 65534);
        outbox();
        assertTrue(Files.exists(base.resolve("3").resolve("lock")));
        for (Path each : given) {
            assertFalse(Files.exists(each.resolve("lock")));
        }
    }

    @Test
    void aLinkIsSkipped() throws Exception {
        Path elsewhere = folder("elsewhere", "rwx------");
        Files.createSymbolicLink(base.resolve("0"), elsewhere);
        Files.writeString(base.resolve("1"), "no folder");
        outbox();
        assertTrue(Files.exists(base.resolve("2").resolve("lock")));
        assertFalse(Files.exists(elsewhere.resolve("lock")));
    }

    @Test
    void theConfiguredFolderMayBeOpenAsKubernetesVolumesAre() throws Exception {
        folder(".", "rwxrwxrwx");
        outbox();
        assertEquals("rwx------", PosixFilePermissions.toString(Files.getPosixFilePermissions(base.resolve("0"))));
    }

    @Test
    void foldersThatOthersCanWriteToAreNotTakenOverAndTheRestIs() throws Exception {
        Outbox outbox = outbox();
        String file = "1600000000000-0a0b0c0d-00000000-events-1.json";
        Files.write(folder("1", "rwxrwxrwx").resolve(file), event("forged", Lane.EVENTS).toLine());
        Files.write(folder("elsewhere", "rwx------").resolve("2" + file), event("linked", Lane.EVENTS).toLine());
        Files.createSymbolicLink(base.resolve("2"), base.resolve("elsewhere"));
        Files.write(folder("3", "rwx------").resolve("3" + file), event("left", Lane.EVENTS).toLine());
        outbox.start(living());
        until(() -> !waitingQuietly(outbox).isEmpty());
        assertEquals(List.of("left"), waiting(outbox, Lane.EVENTS));
        assertTrue(Files.exists(base.resolve("1").resolve(file)));
        assertTrue(Files.exists(base.resolve("elsewhere").resolve("2" + file)));
    }

    @Test
    void aFailedLookUpKeepsTheFile() throws Exception {
        Outbox outbox = outbox();
        boolean[] asked = {false};
        outbox.start(keys -> {
            asked[0] = true;
            throw new IOException("no database");
        });
        outbox.lookUp(outbox.prepare(events(Lane.EVENTS, "a")), false);
        until(() -> asked[0]);
        assertEquals(1, files().size());
        assertTrue(outbox.lane(Lane.EVENTS).isEmpty());
    }

    @Test
    void eventsBeyondTheLimitAreKeptInMemoryAndThenLost() throws Exception {
        maxEvents = 2;
        Outbox outbox = outbox();
        for (String id : List.of("a", "b", "c")) {
            outbox.commit(outbox.prepare(events(Lane.EVENTS, id)));
        }
        until(() -> waitingQuietly(outbox).size() == 3);
        assertEquals(List.of("a", "b", "c"), waiting(outbox, Lane.EVENTS));
        assertEquals(1, outbox.pendingInMemoryCount());
        assertEquals(2, files().size());
        String[] many = new String[10_000];
        java.util.Arrays.setAll(many, each -> "m" + each);
        assertNull(outbox.prepare(events(Lane.EVENTS, many)));
        assertEquals(10_000, counts.lost);
    }

    @Test
    void massLogoutsAreLimitedByBytesAlone() throws Exception {
        maxEvents = 1;
        Outbox outbox = outbox();
        assertNotNull(outbox.prepare(events(Lane.BULK, "a", "b", "c")).file());
        assertNotNull(outbox.prepare(events(Lane.EVENTS, "d")).file()); // they take no room from sign-outs
        assertNull(outbox.prepare(events(Lane.EVENTS, "e")).file());
        OutgoingEvent large = new OutgoingEvent(Lane.BULK, "f", null, new byte[1 << 20]);
        assertNull(outbox.prepare(List.of(large)).file());
        assertEquals(6, outbox.pendingCount());
    }

    @Test
    void aFailingDiskIsTriedAgain() throws Exception {
        Outbox outbox = outbox();
        Path place = base.resolve("0");
        Path away = base.resolve("away");
        Files.move(place, away);
        OutboxEntry entry = outbox.prepare(events(Lane.EVENTS, "a"));
        assertNull(entry.file());
        outbox.commit(entry);
        until(() -> !outbox.lane(Lane.EVENTS).isEmpty());
        assertEquals(1, outbox.pendingInMemoryCount());
        outbox.saveMemory();
        assertEquals(1, outbox.pendingInMemoryCount());
        Files.move(away, place);
        outbox.saveMemory();
        assertEquals(0, outbox.pendingInMemoryCount());
        assertEquals(1, outbox.pendingCount());
        assertEquals(List.of(entry.name() + ".json"), files());
        assertEquals(List.of("a"), waiting(outbox, Lane.EVENTS));
        assertNotNull(outbox.prepare(events(Lane.EVENTS, "b")).file());
    }

    @Test
    void eventsInMemoryAreWrittenAtTheStop() throws Exception {
        maxEvents = 1;
        Outbox outbox = outbox();
        OutboxEntry first = outbox.prepare(events(Lane.EVENTS, "a"));
        outbox.commit(first);
        outbox.commit(outbox.prepare(events(Lane.EVENTS, "b")));
        until(() -> waitingQuietly(outbox).size() == 2);
        outbox.removePublished(first);
        open.remove(outbox);
        outbox.close();
        assertEquals(1, files().size());
        assertEquals(0, counts.lost);
    }

    @Test
    void aSignOutDuringTheStopIsPublishedByTheNextProcess() throws Exception {
        Outbox outbox = outbox();
        OutboxEntry before = outbox.prepare(events(Lane.EVENTS, "a"));
        outbox.stop();
        OutboxEntry after = outbox.prepare(events(Lane.EVENTS, "b"));
        outbox.commit(before);
        outbox.commit(after);
        assertEquals(List.of(before.name() + ".json", after.name() + ".json"), files());
        assertEquals(0, counts.lost);
        outbox.close();
        Outbox next = outbox();
        next.start(living());
        until(() -> waitingQuietly(next).size() == 2);
    }

    @Test
    void aFileWithoutAnEventCanBeSetAside() throws Exception {
        Files.writeString(folder("0", "rwx------").resolve("stray.json"), "hello\n");
        Outbox outbox = outbox();
        outbox.start(living());
        until(() -> !outbox.lane(Lane.EVENTS).isEmpty());
        OutboxEntry entry = outbox.lane(Lane.EVENTS).oldest(1, 0).get(0);
        assertNull(outbox.read(entry).get(0));
        outbox.setAside(entry, ".refused");
        assertEquals(List.of("stray.refused"), files());
        assertFalse(outbox.isExpired(entry));
    }

    @Test
    void anInvalidLineBesideLivingSessionsIsSetAside() throws Exception {
        String name = "1600000000000-0a0b0c0d-00000000-bulk-";
        Path place = folder("0", "rwx------");
        Files.writeString(place.resolve(name + "2.pending"), new String(event("alive", Lane.BULK).toLine(), StandardCharsets.UTF_8) + "hello\n");
        String ended = new String(event("ended", Lane.BULK).toLine(), StandardCharsets.UTF_8);
        Files.writeString(place.resolve(name + "3.pending"), new String(event("alive", Lane.BULK).toLine(), StandardCharsets.UTF_8) + ended + "hello\n");
        Outbox outbox = outbox();
        outbox.start(living("alive"));
        until(() -> filesQuietly().containsAll(List.of(name + "2.refused", name + "3.refused")));
        until(() -> !outbox.lane(Lane.BULK).isEmpty());
        assertEquals(List.of("ended"), waiting(outbox, Lane.BULK));
        assertEquals(2, counts.refused);
        assertEquals(1, outbox.pendingCount());
    }

    @Test
    void anEventInMemoryIsWrittenWhenItIsSetAside() throws Exception {
        maxEvents = 1;
        Outbox outbox = outbox();
        OutboxEntry onDisk = outbox.prepare(events(Lane.EVENTS, "a"));
        OutboxEntry inMemory = outbox.prepare(events(Lane.EVENTS, "b"));
        outbox.commit(onDisk);
        outbox.commit(inMemory);
        until(() -> waitingQuietly(outbox).size() == 2);
        outbox.setAside(inMemory, ".refused");
        until(() -> outbox.pendingInMemoryCount() == 0);
        assertEquals(List.of(onDisk.name() + ".json", inMemory.name() + ".refused"), files());
        assertEquals("b", OutgoingEvent.parse(Files.readString(base.resolve("0").resolve(inMemory.name() + ".refused"))).id());
        assertEquals(List.of("a"), waiting(outbox, Lane.EVENTS));
    }

    @Test
    void aWriteThatRunsRenamesTheFileOfAnEventThatIsSetAside() throws Exception {
        signOutLimit = Duration.ofMillis(100);
        Outbox outbox = outbox();
        HangingEvents hanging = new HangingEvents(event("a", Lane.EVENTS));
        OutboxEntry entry = outbox.prepare(hanging);
        assertNull(entry.file());
        outbox.commit(entry);
        until(() -> !outbox.lane(Lane.EVENTS).isEmpty());
        outbox.setAside(entry, ".expired");
        until(() -> outbox.pendingInMemoryCount() == 0);
        assertEquals(List.of(entry.name() + ".part"), files());
        hanging.end.countDown();
        until(() -> filesQuietly().equals(List.of(entry.name() + ".expired")));
    }

    @Test
    void aWriteThatRunsIsNotStartedAgain() throws Exception {
        signOutLimit = Duration.ofMillis(100);
        Outbox outbox = outbox();
        HangingEvents hanging = new HangingEvents(event("a", Lane.EVENTS));
        OutboxEntry entry = outbox.prepare(hanging);
        outbox.commit(entry);
        until(() -> !outbox.lane(Lane.EVENTS).isEmpty());
        outbox.saveMemory();
        assertEquals(List.of(entry.name() + ".part"), files());
        hanging.end.countDown();
        until(() -> filesQuietly().isEmpty()); // the late file is removed, since the event is counted in memory
        outbox.saveMemory();
        assertEquals(List.of(entry.name() + ".json"), files());
        outbox.removePublished(entry);
        assertEquals(0, outbox.pendingCount());
        assertEquals(0, outbox.pendingInMemoryCount());
    }

    @Test
    void anEventThatCannotBeSetAsideDelaysNoOther() throws Exception {
        Outbox outbox = outbox();
        Path place = base.resolve("0");
        Files.move(place, base.resolve("away"));
        List<OutboxEntry> entries = List.of(outbox.prepare(events(Lane.EVENTS, "a")), outbox.prepare(events(Lane.EVENTS, "b")));
        entries.forEach(outbox::commit);
        until(() -> waitingQuietly(outbox).size() == 2);
        outbox.setAside(entries.get(0), ".refused");
        until(() -> outbox.pendingInMemoryCount() == 1);
        assertEquals(List.of(), files());
        assertEquals(List.of("ERROR notifier: " + entries.get(0).name() + " cannot be set aside as .refused, and is no longer kept"),
                CapturedLog.lines().stream().filter(each -> each.contains(entries.get(0).name() + " cannot")).map(each -> each.substring(0, each.indexOf(": the "))).toList());
        Files.move(base.resolve("away"), place);
        outbox.setAside(entries.get(1), ".refused");
        until(() -> outbox.pendingInMemoryCount() == 0);
        assertEquals(List.of(entries.get(1).name() + ".refused"), files());
    }

    @Test
    void anEventWithoutItsFileIsLost() throws Exception {
        Outbox outbox = outbox();
        outbox.start(living());
        OutboxEntry pending = outbox.prepare(events(Lane.EVENTS, "a"));
        Files.delete(pending.file());
        outbox.lookUp(pending, true);
        until(() -> counts.lost == 1);
        OutboxEntry ready = outbox.prepare(events(Lane.BULK, "b", "c"));
        outbox.commit(ready);
        until(() -> !outbox.lane(Lane.BULK).isEmpty());
        Files.delete(ready.file());
        outbox.onUnreadable(ready, assertThrows(NoSuchFileException.class, () -> outbox.read(ready)));
        assertEquals(3, counts.lost);
        assertEquals(0, outbox.pendingCount());
        assertTrue(outbox.lane(Lane.BULK).isEmpty());
        assertTrue(CapturedLog.lines().stream().anyMatch(each -> each.contains(pending.name() + " is LOST, with 1 events")));
    }

    @Test
    void eventsOfAFolderThatIsMissingAreReadAgain() throws Exception {
        Outbox outbox = outbox();
        OutboxEntry entry = outbox.prepare(events(Lane.EVENTS, "a"));
        outbox.commit(entry);
        until(() -> !outbox.lane(Lane.EVENTS).isEmpty());
        Files.move(base.resolve("0"), base.resolve("away"));
        outbox.onUnreadable(entry, assertThrows(NoSuchFileException.class, () -> outbox.read(entry)));
        assertEquals(0, counts.lost);
        assertEquals(1, outbox.pendingCount());
    }

    @Test
    void aFileThatCannotBeMovedStopsNoOther() throws Exception {
        String name = "1600000000000-0a0b0c0d-0000000%d-events-1.json";
        Path ended = folder("1", "rwx------");
        Files.write(ended.resolve(String.format(name, 0)), event("a", Lane.EVENTS).toLine());
        Files.write(ended.resolve(String.format(name, 1)), event("b", Lane.EVENTS).toLine());
        Outbox outbox = outbox();
        Files.createDirectories(base.resolve("0").resolve(String.format(name, 0)).resolve("full")); // nothing replaces it
        outbox.start(living());
        until(() -> waitingQuietly(outbox).equals(List.of("b")));
        assertTrue(Files.exists(ended.resolve(String.format(name, 0))));
    }

    @Test
    void aNameWithAnEndlessNumberStopsNoOther() throws Exception {
        Path ended = folder("1", "rwx------");
        Files.write(ended.resolve("1600000000000-0a0b0c0d-00000000-events-99999999999999999999.json"), event("a", Lane.EVENTS).toLine());
        Files.write(ended.resolve("1600000000000-0a0b0c0d-00000001-events-1.json"), event("b", Lane.EVENTS).toLine());
        Outbox outbox = outbox();
        outbox.start(living());
        until(() -> waitingQuietly(outbox).equals(List.of("a", "b")));
    }

    @Test
    void theAgeIsReadFromTheName() throws Exception {
        Files.write(folder("0", "rwx------").resolve("1600000000000-0a0b0c0d-00000000-bulk-1.json"), event("a", Lane.BULK).toLine());
        Outbox outbox = outbox();
        outbox.start(living());
        until(() -> !outbox.lane(Lane.BULK).isEmpty());
        assertTrue(outbox.isExpired(outbox.lane(Lane.BULK).oldest(1, 0).get(0)));
        assertTrue(outbox.oldestAgeSeconds() > 1e6);
    }

    private List<String> filesQuietly() {
        try {
            return files();
        } catch (IOException | UncheckedIOException moving) {
            return List.of("moving");
        }
    }

    /** One event whose write hangs until the latch is released. */
    private static final class HangingEvents extends AbstractList<OutgoingEvent> implements RandomAccess {
        private final CountDownLatch end = new CountDownLatch(1);
        private final OutgoingEvent event;

        private HangingEvents(OutgoingEvent event) {
            this.event = event;
        }

        @Override
        public OutgoingEvent get(int index) {
            return event;
        }

        @Override
        public int size() {
            return 1;
        }

        @Override
        public Iterator<OutgoingEvent> iterator() {
            try {
                end.await();
            } catch (InterruptedException stopped) {
                throw new IllegalStateException(stopped);
            }
            return List.of(event).iterator();
        }
    }

    /** Counts written, lost and refused events. */
    private static final class Counts implements PublisherMetrics {
        private volatile int written;
        private volatile int lost;
        private volatile int refused;

        @Override
        public synchronized void onWritten(int events, boolean onDisk) {
            written += events;
        }

        @Override
        public synchronized void onLost(int events) {
            lost += events;
        }

        @Override
        public void observe(PendingEvents pending) {
            // not tested here
        }

        @Override
        public void onPublished(int events) {
            // not tested here
        }

        @Override
        public synchronized void onRefused(int events) {
            refused += events;
        }

        @Override
        public void onExpired(int events) {
            // not tested here
        }

        @Override
        public void onAttemptFailed(FailureReason reason) {
            // not tested here
        }

        @Override
        public void onInternalError() {
            // not tested here
        }

        @Override
        public void close() {
            // not tested here
        }
    }
}
