package dev.notifier.publisher.publishing;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.monitoring.FailureReason;
import dev.notifier.publisher.monitoring.LogThrottle;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import dev.notifier.publisher.outbox.LaneQueue;
import dev.notifier.publisher.outbox.Outbox;
import dev.notifier.publisher.outbox.OutboxEntry;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Publishes one lane, oldest first, on its own thread, so that a failing lane does not delay the other. */
public final class LanePublisher implements Runnable {
    private static final Logger LOG = LoggerFactory.getLogger("dev.notifier.publisher.publishing.LanePublisher");

    /** The maximum number of events in flight, by lane. After a kill, the next process publishes all events of an unfinished file again, such as 2,000 sessions. */
    private static final Map<Lane, Integer> MAX_IN_FLIGHT = Map.of(Lane.EVENTS, 100, Lane.BULK, 1_000);
    private static final int MAX_REFUSED_FILES = 10_000; // where users choose the issuer, they could fill the disk
    private static final long IDLE_WAIT_MILLIS = 1_000;

    private final Lane lane;
    private final Outbox outbox;
    private final LaneQueue queue;
    private final Transport transport;
    private final PublisherMetrics metrics;
    private final int maxRefusedFiles;
    private final Backoff backoff = new Backoff();
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));
    private final LogThrottle refusalThrottle = new LogThrottle(Duration.ofSeconds(1));
    private final InterceptionTracker<Position> interceptions = new InterceptionTracker<>(() -> System.nanoTime() / 1_000_000);
    private final Map<OutboxEntry, List<OutgoingEvent>> opened = new HashMap<>();
    private volatile long stopAt = Long.MAX_VALUE;
    private volatile boolean hasPublished;
    private boolean isFailing;
    private int refusedFileCount;

    public LanePublisher(Lane lane, Outbox outbox, Transport transport, PublisherMetrics metrics) {
        this(lane, outbox, transport, metrics, MAX_REFUSED_FILES);
    }

    LanePublisher(Lane lane, Outbox outbox, Transport transport, PublisherMetrics metrics, int maxRefusedFiles) {
        this.lane = lane;
        this.outbox = outbox;
        this.queue = outbox.lane(lane);
        this.transport = transport;
        this.metrics = metrics;
        this.maxRefusedFiles = maxRefusedFiles;
    }

    /**
     * Requests the thread to end when all due events are published, or at the deadline. An attempt that is running continues.
     *
     * @param deadlineMillis in milliseconds since 1970
     */
    public void stopBy(long deadlineMillis) {
        stopAt = deadlineMillis;
    }

    @Override
    public void run() {
        try {
            if (lane == Lane.EVENTS) {
                attempt(transport::connect); // reports wrong settings at the start; lane bulk connects when it has events
            }
            while (System.currentTimeMillis() < stopAt && (stopAt == Long.MAX_VALUE || queue.hasDue())) {
                Position probe = interceptions.selectProbe(each -> queue.contains(each.entry));
                if (probe != null) {
                    attempt(() -> publishProbe(probe));
                    continue;
                }
                List<OutboxEntry> oldest = queue.oldest(MAX_IN_FLIGHT.get(lane), IDLE_WAIT_MILLIS);
                if (!oldest.isEmpty()) {
                    attempt(() -> {
                        oldest.forEach(this::readOrSetAside);
                        publish(oldest, duePositions(oldest));
                    });
                }
            }
        } catch (InterruptedException stopped) {
            LOG.debug("notifier: lane {} stops", lane.label());
        } finally {
            transport.close();
        }
    }

    private void attempt(Attempt attempt) throws InterruptedException {
        hasPublished = false;
        try {
            attempt.run();
            if (isFailing && hasPublished) { // an attempt may send nothing, such as expired events
                isFailing = false;
                LOG.info("notifier: lane {} is published again", lane.label());
            }
            backoff.reset();
        } catch (PublishException failure) {
            report(failure);
            isFailing = true;
            if (failure.reason() == FailureReason.INTERCEPTED && interceptions.isFirstAttempt()) {
                backoff.reset(); // each intercepted event delays the others by pauses of 1.75 s in all, however many there are
            }
            pause(Math.max(backoff.nextPause(), failure.retryAfter().toMillis()));
        } catch (RuntimeException internalError) { // the thread must continue
            metrics.onInternalError();
            if (throttle.tryAcquire(internalError.toString())) {
                LOG.error("notifier: publishing on lane {} fails", lane.label(), internalError);
            }
            transport.drop();
            pause(backoff.nextPause());
        }
    }

    private void report(PublishException failure) {
        String reason = failure.reason().label();
        metrics.onAttemptFailed(failure.reason());
        if (throttle.tryAcquire(reason)) {
            LOG.error("notifier: publishing on lane {} fails ({}), and is repeated: {}", lane.label(), reason, failure.getMessage());
        }
    }

    private void pause(long millis) throws InterruptedException {
        long until = System.currentTimeMillis() + millis;
        while (System.currentTimeMillis() < Math.min(until, stopAt)) {
            Thread.sleep(Math.min(100, millis));
        }
    }

    /** Publishes a deferred event. If it is intercepted again, the lane continues without a pause. */
    private void publishProbe(Position probe) throws PublishException, InterruptedException {
        readOrSetAside(probe.entry);
        if (!opened.containsKey(probe.entry)) {
            return;
        }
        try {
            publish(List.of(probe.entry), List.of(probe));
        } catch (PublishException failure) {
            if (failure.reason() != FailureReason.INTERCEPTED) {
                throw failure;
            }
            report(failure);
        }
    }

    private void publish(List<OutboxEntry> entries, List<Position> positions) throws PublishException, InterruptedException {
        List<OutgoingEvent> events = positions.stream().map(each -> opened.get(each.entry).get(each.line)).toList();
        try {
            if (!events.isEmpty()) {
                transport.publish(events, new ResultRecorder(positions, events));
            }
        } finally {
            entries.forEach(this::removeIfDone);
        }
    }

    /** Returns the due events of these entries, in order, up to the limit in flight. Skips entries that are not opened. */
    private List<Position> duePositions(List<OutboxEntry> entries) {
        List<Position> positions = new ArrayList<>();
        for (OutboxEntry entry : entries) {
            List<OutgoingEvent> events = opened.get(entry);
            for (int line = 0; events != null && line < events.size() && positions.size() < MAX_IN_FLIGHT.get(lane); line++) {
                if (!entry.completed().get(line) && !entry.deferred().get(line)) {
                    positions.add(new Position(entry, line));
                }
            }
        }
        return positions;
    }

    /** Reads the events of an entry into `opened`. Sets the entry aside instead if it has expired, and postpones it if it cannot be read. */
    private void readOrSetAside(OutboxEntry entry) {
        if (outbox.isExpired(entry)) { // checked at each attempt: it may have expired since it was opened
            opened.remove(entry);
            int remaining = entry.eventCount() - entry.completed().cardinality();
            metrics.onExpired(remaining);
            LOG.error("notifier: {} events in {} are too old to be published, and are set aside as .expired", remaining, entry.name());
            outbox.setAside(entry, ".expired");
            return;
        }
        if (opened.containsKey(entry)) {
            return;
        }
        List<OutgoingEvent> events;
        try {
            events = outbox.read(entry);
        } catch (IOException failure) {
            outbox.onUnreadable(entry, failure);
            return;
        }
        for (int line = 0; line < events.size(); line++) {
            if (events.get(line) == null) {
                refuse(entry, line, "it is not a valid event");
            }
        }
        opened.put(entry, events);
    }

    private void refuse(OutboxEntry entry, int line, String why) {
        entry.completed().set(line);
        entry.markRefused();
        metrics.onRefused(1);
        if (refusalThrottle.tryAcquire("refused")) {
            LOG.error("notifier: event {} in {} can never be published, and is set aside as .refused with its entry: {}", line + 1, entry.name(), why);
        }
    }

    private void removeIfDone(OutboxEntry entry) {
        List<OutgoingEvent> events = opened.get(entry);
        if (events == null || entry.completed().cardinality() < events.size()) {
            return;
        }
        opened.remove(entry);
        if (entry.hasRefusedEvent() && refusedFileCount++ < maxRefusedFiles) {
            outbox.setAside(entry, ".refused");
            return;
        }
        if (entry.hasRefusedEvent() && throttle.tryAcquire("refused files")) {
            LOG.error("notifier: lane {} has set aside {} files as .refused since the start, so further ones are removed", lane.label(), maxRefusedFiles);
        }
        outbox.removePublished(entry);
    }

    /** An event in the outbox. */
    private record Position(OutboxEntry entry, int line) implements Comparable<Position> {
        @Override
        public int compareTo(Position other) {
            int byEntry = entry.name().compareTo(other.entry.name());
            return byEntry != 0 ? byEntry : Integer.compare(line, other.line);
        }
    }

    /** Records the results of the events of one attempt. */
    private final class ResultRecorder implements Transport.ResultListener {
        private final List<Position> positions;
        private final List<OutgoingEvent> events;

        private ResultRecorder(List<Position> positions, List<OutgoingEvent> events) {
            this.positions = positions;
            this.events = events;
        }

        @Override
        public void onConfirmed(int index) {
            Position position = positions.get(index);
            position.entry.completed().set(position.line);
            metrics.onPublished(1);
            hasPublished = true;
            if (interceptions.onConfirmed(position)) {
                queue.restoreDeferred();
            }
        }

        @Override
        public void onForbidden(int index, String why) {
            Position position = positions.get(index);
            metrics.onAttemptFailed(FailureReason.DENIED);
            interceptions.defer(position);
            position.entry.deferred().set(position.line);
            if (throttle.tryAcquire("forbidden")) {
                LOG.error("notifier: publishing event {} fails (denied), delays no other event, and is repeated; every 10 to 60 s one such event is sent again, in rotation: {}",
                        events.get(index).id(), why);
            }
        }

        @Override
        public void onIntercepted(int index, String why) {
            Position position = positions.get(index);
            if (interceptions.onIntercepted(position)) {
                position.entry.deferred().set(position.line);
                LOG.warn("notifier: event {} is deferred after {} responses that are not notifier's, and delays no other event; every 10 to 60 s one deferred event is sent again, in rotation: {}",
                        events.get(index).id(), InterceptionTracker.MAX_ATTEMPTS, why);
            }
        }

        @Override
        public void onRefused(int index, String why) {
            refuse(positions.get(index).entry, positions.get(index).line, "event " + events.get(index).id() + " is refused: " + why);
        }
    }

    /** An action whose failure is reported and followed by a pause. */
    private interface Attempt {
        void run() throws PublishException, InterruptedException;
    }
}
