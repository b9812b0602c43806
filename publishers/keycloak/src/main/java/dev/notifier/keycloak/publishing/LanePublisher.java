package dev.notifier.keycloak.publishing;

import dev.notifier.keycloak.event.Ending;
import dev.notifier.keycloak.event.Lane;
import dev.notifier.keycloak.outbox.LaneQueue;
import dev.notifier.keycloak.outbox.Outbox;
import dev.notifier.keycloak.outbox.Slip;
import dev.notifier.keycloak.watch.Seldom;
import dev.notifier.keycloak.watch.Tally;
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
    private final Tally tally;
    private final Backoff backoff = new Backoff();
    private final Seldom aMinute = new Seldom(Duration.ofMinutes(1));
    private final InterceptionTracker<Place> interceptions = new InterceptionTracker<>(() -> System.nanoTime() / 1_000_000);
    private final Map<Slip, List<Ending>> opened = new HashMap<>();
    private volatile long stopAt = Long.MAX_VALUE;
    private boolean failing;

    public LanePublisher(Lane lane, Outbox outbox, Transport transport, Tally tally) {
        this.lane = lane;
        this.outbox = outbox;
        this.queue = outbox.lane(lane);
        this.transport = transport;
        this.tally = tally;
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
                Place probe = interceptions.selectProbe(each -> queue.contains(each.slip));
                if (probe != null) {
                    attempt(() -> publishProbe(probe));
                    continue;
                }
                List<Slip> oldest = queue.oldest(IN_FLIGHT.get(lane), LOOK_MILLIS);
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
        } catch (Trouble trouble) {
            count(trouble);
            failing = true;
            if (trouble.reason() == Trouble.Reason.INTERCEPTED && interceptions.isFirstAttempt()) {
                backoff.succeeded(); // each intercepted event delays the others by 2 s at most, however many there are
            }
            pause(Math.max(backoff.pause(), trouble.retryAfter().toMillis()));
        } catch (RuntimeException ours) { // an internal error: the thread continues
            tally.broken();
            if (aMinute.allows(ours.toString())) {
                LOG.errorf(ours, "notifier: publishing on lane %s fails", lane.word());
            }
            transport.drop();
            pause(backoff.pause());
        }
    }

    private void count(Trouble trouble) {
        tally.failed(trouble.reason());
        if (aMinute.allows(trouble.reason().word())) {
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
    private void publishProbe(Place probe) throws Trouble, InterruptedException {
        List<Ending> lines = open(probe.slip);
        if (lines == null) {
            return;
        }
        try {
            publish(List.of(probe.slip), List.of(probe));
        } catch (Trouble trouble) {
            if (trouble.reason() != Trouble.Reason.INTERCEPTED) {
                throw trouble;
            }
            count(trouble);
        }
    }

    private void publish(List<Slip> slips) throws Trouble, InterruptedException {
        publish(slips, places(slips));
    }

    private void publish(List<Slip> slips, List<Place> places) throws Trouble, InterruptedException {
        List<Ending> endings = places.stream().map(each -> opened.get(each.slip).get(each.line)).toList();
        try {
            if (!endings.isEmpty()) {
                transport.publish(endings, new Settling(places, endings));
            }
        } finally {
            slips.forEach(this::finish);
        }
    }

    /** Up to so many events that are not published yet, in order. */
    private List<Place> places(List<Slip> slips) {
        List<Place> places = new ArrayList<>();
        for (Slip slip : slips) {
            List<Ending> lines = open(slip);
            for (int line = 0; lines != null && line < lines.size() && places.size() < IN_FLIGHT.get(lane); line++) {
                if (!slip.published().get(line) && !slip.deferred().get(line)) {
                    places.add(new Place(slip, line));
                }
            }
        }
        return places;
    }

    /** The endings of a slip; null if there is nothing to publish of it now. */
    private List<Ending> open(Slip slip) {
        if (outbox.isTooOld(slip)) { // it may have become so since it was opened
            opened.remove(slip);
            int left = slip.events() - slip.published().cardinality();
            tally.expired(left);
            LOG.errorf("notifier: %d events in %s are too old to be published, and are set aside as .expired", left, slip.name());
            outbox.setAside(slip, ".expired");
            return null;
        }
        List<Ending> lines = opened.get(slip);
        if (lines != null) {
            return lines;
        }
        try {
            lines = outbox.read(slip);
        } catch (NoSuchFileException gone) {
            LOG.errorf("notifier: %s was taken away from the outbox", slip.name());
            outbox.published(slip);
            return null;
        } catch (IOException failed) {
            LOG.errorf("notifier: %s cannot be read, and is tried again in a minute: %s", slip.name(), failed);
            outbox.later(slip);
            return null;
        }
        for (int line = 0; line < lines.size(); line++) {
            if (lines.get(line) == null) {
                refuse(slip, line, "it is not a valid event");
            }
        }
        opened.put(slip, lines);
        return lines;
    }

    private void refuse(Slip slip, int line, String why) {
        slip.published().set(line);
        slip.flaw();
        tally.refused(1);
        LOG.errorf("notifier: event %d in %s can never be published, the file is set aside as .refused: %s", line + 1, slip.name(), why);
    }

    private void finish(Slip slip) {
        List<Ending> lines = opened.get(slip);
        if (lines == null || slip.published().cardinality() < lines.size()) {
            return;
        }
        opened.remove(slip);
        if (slip.isFlawed()) {
            outbox.setAside(slip, ".refused");
        } else {
            outbox.published(slip);
        }
    }

    private record Place(Slip slip, int line) implements Comparable<Place> {
        @Override
        public int compareTo(Place other) {
            int bySlip = slip.name().compareTo(other.slip.name());
            return bySlip != 0 ? bySlip : Integer.compare(line, other.line);
        }
    }

    /** Records the result of each event, on any thread. */
    private final class Settling implements Transport.Fates {
        private final List<Place> places;
        private final List<Ending> endings;

        private Settling(List<Place> places, List<Ending> endings) {
            this.places = places;
            this.endings = endings;
        }

        @Override
        public void confirmed(int place) {
            places.get(place).slip.published().set(places.get(place).line);
            tally.published(1);
            if (interceptions.onConfirmed(places.get(place))) {
                queue.restoreDeferred();
            }
        }

        @Override
        public void intercepted(int place, String why) {
            if (interceptions.onIntercepted(places.get(place))) {
                places.get(place).slip.deferred().set(places.get(place).line);
                LOG.warnf("notifier: event %s is deferred after %d answers that are not notifier's; it is sent again every 10 to 60 s, and delays no other event: %s",
                        endings.get(place).id(), InterceptionTracker.MAX_ATTEMPTS, why);
            }
        }

        @Override
        public void refused(int place, String why) {
            LOG.errorf("notifier: event %s is refused", endings.get(place).id());
            refuse(places.get(place).slip, places.get(place).line, why);
        }
    }

    /** Something that may fail for now. */
    private interface Step {
        void run() throws Trouble, InterruptedException;
    }
}
