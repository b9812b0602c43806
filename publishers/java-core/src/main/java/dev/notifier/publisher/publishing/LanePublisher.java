package dev.notifier.publisher.publishing;

import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.outbox.LaneQueue;
import dev.notifier.publisher.outbox.Outbox;
import dev.notifier.publisher.outbox.OutboxEntry;
import dev.notifier.publisher.monitoring.LogThrottle;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import java.io.IOException;
import java.nio.file.NoSuchFileException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jboss.logging.Logger;

/** Publishes one lane, oldest first, on a dedicated thread: a failing lane does not delay the other. */
public final class LanePublisher implements Runnable {
    private static final Logger LOG = Logger.getLogger(LanePublisher.class);
    /** Of each lane: after a kill so many come twice at the most. */
    private static final Map<Lane, Integer> IN_FLIGHT = Map.of(Lane.EVENTS, 100, Lane.BULK, 1_000);

    private static final long LOOK_MILLIS = 1_000;

    private final Lane lane;
    private final Outbox outbox;
    private final LaneQueue queue;
    private final Transport transport;
    private final PublisherMetrics metrics;
    private final Backoff backoff = new Backoff();
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));
    private final InterceptionTracker<Place> interceptions = new InterceptionTracker<>(() -> System.nanoTime() / 1_000_000);
    private final Map<OutboxEntry, List<OutgoingEvent>> opened = new HashMap<>();
    private volatile long stopAt = Long.MAX_VALUE;
    private boolean failing;

    public LanePublisher(Lane lane, Outbox outbox, Transport transport, PublisherMetrics metrics) {
        this.lane = lane;
        this.outbox = outbox;
        this.queue = outbox.lane(lane);
        this.transport = transport;
        this.metrics = metrics;
    }

    /** Go on until nothing waits, or until this time. */
    public void stopBy(long millis) {
        stopAt = millis;
    }

    @Override
    public void run() {
        try {
            if (lane == Lane.EVENTS) {
                attempt(transport::connect); // mistakes are seen at the start; the other lane is seldom used
            }
            while (System.currentTimeMillis() < stopAt && !(stopAt < Long.MAX_VALUE && !queue.hasDue())) {
                Place probe = interceptions.selectProbe(each -> queue.contains(each.entry));
                if (probe != null) {
                    attempt(() -> publishProbe(probe));
                    continue;
                }
                List<OutboxEntry> oldest = queue.oldest(IN_FLIGHT.get(lane), LOOK_MILLIS);
                if (!oldest.isEmpty()) {
                    attempt(() -> publish(oldest));
                }
            }
        } catch (InterruptedException stopped) {
            LOG.debugf("notifier: lane %s stops", lane.word());
        } finally {
            transport.close();
        }
    }

    private void attempt(Step step) throws InterruptedException {
        try {
            step.run();
            if (failing) {
                failing = false;
                LOG.infof("notifier: lane %s is published again", lane.word());
            }
            backoff.succeeded();
        } catch (PublishException trouble) {
            count(trouble);
            failing = true;
            if (trouble.reason() == PublishException.Reason.INTERCEPTED && interceptions.isFirstAttempt()) {
                backoff.succeeded(); // each intercepted event delays the others by 2 s at most, however many there are
            }
            pause(Math.max(backoff.pause(), trouble.retryAfter().toMillis()));
        } catch (RuntimeException ours) { // an internal error: the thread continues
            metrics.broken();
            if (throttle.tryAcquire(ours.toString())) {
                LOG.errorf(ours, "notifier: publishing on lane %s fails", lane.word());
            }
            transport.drop();
            pause(backoff.pause());
        }
    }

    private void count(PublishException trouble) {
        metrics.failed(trouble.reason());
        if (throttle.tryAcquire(trouble.reason().word())) {
            LOG.errorf("notifier: publishing on lane %s fails (%s), events wait: %s", lane.word(), trouble.reason().word(), trouble.getMessage());
        }
    }

    private void pause(long millis) throws InterruptedException {
        long until = System.currentTimeMillis() + millis;
        while (System.currentTimeMillis() < Math.min(until, stopAt)) {
            Thread.sleep(Math.min(100, millis));
        }
    }

    /** Posts a deferred event. If it is intercepted again, that concerns this event alone. */
    private void publishProbe(Place probe) throws PublishException, InterruptedException {
        List<OutgoingEvent> lines = open(probe.entry);
        if (lines == null) {
            return;
        }
        try {
            publish(List.of(probe.entry), List.of(probe));
        } catch (PublishException trouble) {
            if (trouble.reason() != PublishException.Reason.INTERCEPTED) {
                throw trouble;
            }
            count(trouble);
        }
    }

    private void publish(List<OutboxEntry> entries) throws PublishException, InterruptedException {
        publish(entries, places(entries));
    }

    private void publish(List<OutboxEntry> entries, List<Place> places) throws PublishException, InterruptedException {
        List<OutgoingEvent> events = places.stream().map(each -> opened.get(each.entry).get(each.line)).toList();
        try {
            if (!events.isEmpty()) {
                transport.publish(events, new Settling(places, events));
            }
        } finally {
            entries.forEach(this::finish);
        }
    }

    /** Up to so many events that are not published yet, in order. */
    private List<Place> places(List<OutboxEntry> entries) {
        List<Place> places = new ArrayList<>();
        for (OutboxEntry entry : entries) {
            List<OutgoingEvent> lines = open(entry);
            for (int line = 0; lines != null && line < lines.size() && places.size() < IN_FLIGHT.get(lane); line++) {
                if (!entry.published().get(line) && !entry.deferred().get(line)) {
                    places.add(new Place(entry, line));
                }
            }
        }
        return places;
    }

    /** The endings of a slip; null if there is nothing to publish of it now. */
    private List<OutgoingEvent> open(OutboxEntry entry) {
        if (outbox.isTooOld(entry)) { // it may have become so since it was opened
            opened.remove(entry);
            int left = entry.events() - entry.published().cardinality();
            metrics.expired(left);
            LOG.errorf("notifier: %d events in %s are too old to be published, and are set aside as .expired", left, entry.name());
            outbox.setAside(entry, ".expired");
            return null;
        }
        List<OutgoingEvent> lines = opened.get(entry);
        if (lines != null) {
            return lines;
        }
        try {
            lines = outbox.read(entry);
        } catch (NoSuchFileException gone) {
            LOG.errorf("notifier: %s was taken away from the outbox", entry.name());
            outbox.published(entry);
            return null;
        } catch (IOException failed) {
            LOG.errorf("notifier: %s cannot be read, and is tried again in a minute: %s", entry.name(), failed);
            outbox.later(entry);
            return null;
        }
        for (int line = 0; line < lines.size(); line++) {
            if (lines.get(line) == null) {
                refuse(entry, line, "it is not a valid event");
            }
        }
        opened.put(entry, lines);
        return lines;
    }

    private void refuse(OutboxEntry entry, int line, String why) {
        entry.published().set(line);
        entry.flaw();
        metrics.refused(1);
        LOG.errorf("notifier: event %d in %s can never be published, the file is set aside as .refused: %s", line + 1, entry.name(), why);
    }

    private void finish(OutboxEntry entry) {
        List<OutgoingEvent> lines = opened.get(entry);
        if (lines == null || entry.published().cardinality() < lines.size()) {
            return;
        }
        opened.remove(entry);
        if (entry.isFlawed()) {
            outbox.setAside(entry, ".refused");
        } else {
            outbox.published(entry);
        }
    }

    private record Place(OutboxEntry entry, int line) implements Comparable<Place> {
        @Override
        public int compareTo(Place other) {
            int byEntry = entry.name().compareTo(other.entry.name());
            return byEntry != 0 ? byEntry : Integer.compare(line, other.line);
        }
    }

    /** Records the result of each event, on any thread. */
    private final class Settling implements Transport.ResultListener {
        private final List<Place> places;
        private final List<OutgoingEvent> events;

        private Settling(List<Place> places, List<OutgoingEvent> events) {
            this.places = places;
            this.events = events;
        }

        @Override
        public void confirmed(int place) {
            places.get(place).entry.published().set(places.get(place).line);
            metrics.published(1);
            if (interceptions.onConfirmed(places.get(place))) {
                queue.restoreDeferred();
            }
        }

        @Override
        public void intercepted(int place, String why) {
            if (interceptions.onIntercepted(places.get(place))) {
                places.get(place).entry.deferred().set(places.get(place).line);
                LOG.warnf("notifier: event %s is deferred after %d answers that are not notifier's; it is sent again every 10 to 60 s, and delays no other event: %s",
                        events.get(place).id(), InterceptionTracker.MAX_ATTEMPTS, why);
            }
        }

        @Override
        public void refused(int place, String why) {
            LOG.errorf("notifier: event %s is refused", events.get(place).id());
            refuse(places.get(place).entry, places.get(place).line, why);
        }
    }

    /** Something that may fail for now. */
    private interface Step {
        void run() throws PublishException, InterruptedException;
    }
}
