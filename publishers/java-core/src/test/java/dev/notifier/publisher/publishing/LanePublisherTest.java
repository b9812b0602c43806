package dev.notifier.publisher.publishing;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.monitoring.FailureReason;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import dev.notifier.publisher.outbox.CapturedLog;
import dev.notifier.publisher.outbox.Outbox;
import dev.notifier.publisher.settings.PublisherSettings.OutboxLimits;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.reflect.Proxy;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class LanePublisherTest {
    @TempDir
    Path base;

    private final ConcurrentHashMap<String, AtomicInteger> counts = new ConcurrentHashMap<>();
    private final List<String> taken = Collections.synchronizedList(new ArrayList<>());
    private final List<Thread> threads = new ArrayList<>();
    private final List<LanePublisher> publishers = new ArrayList<>();
    private final int firstLogLine = CapturedLog.lines().size();
    private volatile Script script = (events, results) -> {
        for (int place = 0; place < events.size(); place++) {
            taken.add(events.get(place).id());
            results.onConfirmed(place);
        }
    };
    private Outbox outbox;
    private PublisherMetrics metrics;

    @BeforeEach
    void open() throws Exception {
        metrics = (PublisherMetrics) Proxy.newProxyInstance(PublisherMetrics.class.getClassLoader(), new Class<?>[] {PublisherMetrics.class}, (proxy, method, args) -> {
            counts.computeIfAbsent(method.getName(), key -> new AtomicInteger()).addAndGet(args != null && args[0] instanceof Integer events ? events : 1);
            return null;
        });
        outbox = Outbox.open(new OutboxLimits(base, 100_000, 1 << 30, Duration.ofDays(30), Duration.ofSeconds(2)), metrics);
        outbox.start(keys -> java.util.Set.of());
    }

    @AfterEach
    void close() throws Exception {
        publishers.forEach(each -> each.stopBy(0));
        threads.forEach(Thread::interrupt);
        stop();
        outbox.close();
    }

    /** Ends the lanes' threads, so that their log is complete. */
    private void stop() throws InterruptedException {
        publishers.forEach(each -> each.stopBy(0));
        for (Thread thread : threads) {
            thread.join(5_000);
        }
    }

    private long recoveryLines() {
        List<String> lines = CapturedLog.lines();
        return lines.subList(firstLogLine, lines.size()).stream().filter(each -> each.equals("INFO notifier: lane events is published again")).count();
    }

    private void publish(Lane lane) {
        run(new LanePublisher(lane, outbox, new Scripted(), metrics));
    }

    private void run(LanePublisher publisher) {
        publishers.add(publisher);
        Thread thread = new Thread(publisher);
        threads.add(thread);
        thread.start();
    }

    private void commit(Lane lane, String... ids) {
        outbox.commit(outbox.prepare(Stream.of(ids).map(each -> new OutgoingEvent(lane, each, null,
                ("{\"id\":\"" + each + "\",\"iss\":\"https://i\",\"clients\":[]}").getBytes(StandardCharsets.UTF_8))).toList()));
    }

    private int count(String what) {
        return counts.getOrDefault(what, new AtomicInteger()).get();
    }

    private static void until(BooleanSupplier seen) throws InterruptedException {
        long end = System.nanoTime() + 20_000_000_000L;
        while (!seen.getAsBoolean()) {
            assertTrue(System.nanoTime() < end, "it did not come");
            Thread.sleep(5);
        }
    }

    @Test
    void eventsArePublishedInOrderAndTheirFilesRemoved() throws Exception {
        List<String> wanted = new ArrayList<>();
        for (int i = 0; i < 250; i++) {
            commit(Lane.EVENTS, "e" + i);
            wanted.add("e" + i);
        }
        publish(Lane.EVENTS);
        until(() -> outbox.pendingCount() == 0);
        assertEquals(wanted, taken);
        assertEquals(250, count("onPublished"));
        until(() -> files().equals(List.of("lock"))); // a file is removed after it is counted out
    }

    @Test
    void confirmedEventsAreNotSentAgainAfterAFailure() throws Exception {
        Script works = script;
        AtomicInteger attempts = new AtomicInteger();
        script = (events, results) -> {
            if (attempts.incrementAndGet() == 1) {
                taken.add(events.get(0).id());
                results.onConfirmed(0);
                throw new PublishException(FailureReason.DISCONNECTED, "broken");
            }
            works.publish(events, results);
        };
        commit(Lane.EVENTS, "a", "b", "c");
        publish(Lane.EVENTS);
        until(() -> outbox.pendingCount() == 0);
        assertEquals(List.of("a", "b", "c"), taken);
        assertEquals(1, count("onAttemptFailed"));
        stop();
        assertEquals(1, recoveryLines());
    }

    @Test
    void aFileAboveTheLimitInFlightIsPublishedCompletely() throws Exception {
        String[] ids = new String[2_300];
        java.util.Arrays.setAll(ids, each -> "b" + each);
        AtomicInteger most = new AtomicInteger();
        Script works = script;
        script = (events, results) -> {
            most.accumulateAndGet(events.size(), Math::max);
            works.publish(events, results);
        };
        commit(Lane.BULK, ids);
        publish(Lane.BULK);
        until(() -> outbox.pendingCount() == 0);
        assertEquals(List.of(ids), taken);
        assertEquals(1_000, most.get());
    }

    @Test
    void aHangingLaneDelaysNoOther() throws Exception {
        Script works = script;
        script = (events, results) -> {
            if (events.get(0).lane() == Lane.BULK) {
                Thread.sleep(60_000);
            }
            works.publish(events, results);
        };
        commit(Lane.BULK, "b");
        publish(Lane.BULK);
        publish(Lane.EVENTS);
        commit(Lane.EVENTS, "a");
        until(() -> taken.contains("a") && outbox.pendingCount() == 1);
    }

    @Test
    void anInterceptedEventDelaysNoOther() throws Exception {
        script = (events, results) -> {
            for (int place = 0; place < events.size(); place++) {
                if (events.get(place).id().equals("bad")) {
                    results.onIntercepted(place, "403");
                    throw new PublishException(FailureReason.INTERCEPTED, "403");
                }
                taken.add(events.get(place).id());
                results.onConfirmed(place);
            }
        };
        commit(Lane.EVENTS, "a", "bad", "b");
        commit(Lane.EVENTS, "c");
        publish(Lane.EVENTS);
        until(() -> taken.size() == 3);
        assertEquals(List.of("a", "b", "c"), taken);
        assertEquals(3, count("onAttemptFailed"));
        publishers.get(0).stopBy(System.currentTimeMillis() + 30_000);
        threads.get(0).join(5_000); // a deferred event does not delay the stop
        assertFalse(threads.get(0).isAlive());
        assertEquals(1, files().stream().filter(each -> each.endsWith(".json")).count());
    }

    @Test
    void anEventThatIsNotPermittedDelaysNoOtherAndIsNotLost() throws Exception {
        AtomicBoolean isPermitted = new AtomicBoolean();
        script = (events, results) -> {
            for (int place = 0; place < events.size(); place++) {
                if (events.get(place).id().startsWith("other-issuer") && !isPermitted.get()) {
                    results.onForbidden(place, "403");
                } else {
                    taken.add(events.get(place).id());
                    results.onConfirmed(place);
                }
            }
        };
        commit(Lane.EVENTS, "other-issuer-1");
        commit(Lane.EVENTS, "a");
        commit(Lane.EVENTS, "other-issuer-2", "b");
        publish(Lane.EVENTS);
        until(() -> taken.size() == 2 && outbox.pendingCount() == 3); // b is in the file of the second
        assertEquals(2, count("onAttemptFailed"));
        isPermitted.set(true);
        until(() -> outbox.pendingCount() == 0); // the first is sent again after 10 s, and restores the second
        assertEquals(List.of("a", "b", "other-issuer-1", "other-issuer-2"), taken);
        stop();
        List<String> lines = CapturedLog.lines();
        assertEquals(1, lines.subList(firstLogLine, lines.size()).stream().filter(each -> each.contains("fails (denied)")).count());
    }

    @Test
    void deferredEventsAreProbedInRotation() {
        long[] now = {0};
        InterceptionTracker<String> tracker = new InterceptionTracker<>(() -> now[0]);
        for (String event : List.of("a", "b", "b")) {
            assertFalse(tracker.onIntercepted(event));
        }
        assertTrue(tracker.onIntercepted("b"));
        assertFalse(tracker.onIntercepted("c") || tracker.onIntercepted("c"));
        assertTrue(tracker.onIntercepted("c"));
        assertEquals(null, tracker.selectProbe(each -> true));
        List<String> probes = new ArrayList<>();
        for (int seconds : new int[] {10, 20, 40, 60, 60}) {
            now[0] += seconds * 1_000L - 1;
            assertEquals(null, tracker.selectProbe(each -> true));
            now[0] += 1;
            probes.add(tracker.selectProbe(each -> true));
        }
        assertEquals(List.of("b", "c", "b", "c", "b"), probes);
        assertTrue(tracker.onConfirmed("c"));
        assertFalse(tracker.isDeferred("b"));
    }

    @Test
    void aRefusedEventIsSetAside() throws Exception {
        script = (events, results) -> {
            for (int place = 0; place < events.size(); place++) {
                if (events.get(place).id().equals("bad")) {
                    results.onRefused(place, "400");
                } else {
                    taken.add(events.get(place).id());
                    results.onConfirmed(place);
                }
            }
        };
        commit(Lane.EVENTS, "bad");
        commit(Lane.EVENTS, "good");
        publish(Lane.EVENTS);
        until(() -> outbox.pendingCount() == 0);
        assertEquals(List.of("good"), taken);
        assertEquals(1, count("onRefused"));
        assertEquals(1, files().stream().filter(each -> each.endsWith(".refused")).count());
    }

    @Test
    void refusedEventsDoNotFillTheDiskNorTheLog() throws Exception {
        script = (events, results) -> {
            for (int place = 0; place < events.size(); place++) {
                results.onRefused(place, "400");
            }
        };
        for (int event = 0; event < 20; event++) {
            commit(Lane.EVENTS, "bad-" + event);
        }
        run(new LanePublisher(Lane.EVENTS, outbox, new Scripted(), metrics, 3));
        until(() -> outbox.pendingCount() == 0);
        stop();
        assertEquals(20, count("onRefused"));
        assertEquals(3, files().stream().filter(each -> each.endsWith(".refused")).count());
        assertEquals(4, files().size(), "the lock, too");
        List<String> lines = CapturedLog.lines().subList(firstLogLine, CapturedLog.lines().size());
        assertTrue(lines.stream().filter(each -> each.contains("can never be published")).count() <= 3, "at most one per second");
        assertEquals(1, lines.stream().filter(each -> each.contains("further ones are removed")).count());
    }

    @Test
    void anEventThatExpiresDuringAnOutageIsSetAside() throws Exception {
        outbox.close();
        outbox = Outbox.open(new OutboxLimits(base, 100_000, 1 << 30, Duration.ofSeconds(1), Duration.ofSeconds(2)), metrics);
        outbox.start(keys -> java.util.Set.of());
        AtomicInteger attempts = new AtomicInteger();
        script = (events, results) -> {
            attempts.incrementAndGet();
            throw new PublishException(FailureReason.UNREACHABLE, "away");
        };
        commit(Lane.EVENTS, "a");
        publish(Lane.EVENTS);
        until(() -> outbox.pendingCount() == 0);
        assertTrue(attempts.get() > 0);
        assertEquals(1, count("onExpired"));
        until(() -> files().stream().anyMatch(each -> each.endsWith(".expired"))); // renamed after it is counted out
        stop();
        assertEquals(0, recoveryLines());
    }

    @Test
    void anInternalErrorDoesNotEndTheThread() throws Exception {
        Script works = script;
        AtomicInteger attempts = new AtomicInteger();
        script = (events, results) -> {
            if (attempts.incrementAndGet() == 1) {
                throw new IllegalStateException("a mistake");
            }
            works.publish(events, results);
        };
        commit(Lane.EVENTS, "a");
        publish(Lane.EVENTS);
        until(() -> taken.contains("a"));
        assertEquals(1, count("onInternalError"));
        assertFalse(threads.get(0).isInterrupted());
    }

    @Test
    void pausesDoubleUpToTenSeconds() {
        Backoff backoff = new Backoff();
        List<Long> pauses = Stream.generate(backoff::nextPause).limit(8).toList();
        assertEquals(List.of(250L, 500L, 1_000L, 2_000L, 4_000L, 8_000L, 10_000L, 10_000L), pauses);
        backoff.reset();
        assertEquals(250L, backoff.nextPause());
    }

    private List<String> files() {
        try (Stream<Path> found = Files.walk(base)) {
            return found.filter(Files::isRegularFile).map(each -> each.getFileName().toString()).toList();
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    private interface Script {
        void publish(List<OutgoingEvent> events, Transport.ResultListener results) throws PublishException, InterruptedException;
    }

    private final class Scripted implements Transport {
        @Override
        public void publish(List<OutgoingEvent> events, ResultListener results) throws PublishException, InterruptedException {
            script.publish(events, results);
        }

        @Override
        public void connect() {
            // always there
        }

        @Override
        public void drop() {
            // nothing is open
        }

        @Override
        public void close() {
            // nothing is open
        }
    }
}
