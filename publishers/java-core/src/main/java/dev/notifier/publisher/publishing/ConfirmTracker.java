package dev.notifier.publisher.publishing;

import com.rabbitmq.client.Channel;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;

/** Follows which messages of a channel the broker has confirmed, returned or refused. */
final class ConfirmTracker {
    private final TreeMap<Long, Integer> open = new TreeMap<>();
    private final Map<String, Integer> places = new HashMap<>();
    private final Map<Integer, Boolean> returned = new HashMap<>();
    private Transport.ResultListener results;
    private long next;
    private long heard;
    private boolean refused;
    private ShutdownSignalException closed;

    ConfirmTracker(Channel channel) throws IOException {
        channel.addConfirmListener((number, multiple) -> settle(number, multiple, true), (number, multiple) -> settle(number, multiple, false));
        channel.addReturnListener(message -> giveBack(message.getProperties().getMessageId()));
        channel.addShutdownListener(this::close);
        channel.confirmSelect();
    }

    /** Start a new batch: no confirm of an earlier batch is pending. */
    synchronized void expect(int messages, Transport.ResultListener whom, long first) {
        open.clear();
        places.clear();
        returned.clear();
        refused = false;
        results = whom;
        next = first;
    }

    synchronized void publishing(int place, String id) {
        open.put(next++, place);
        places.put(id, place);
    }

    private synchronized void giveBack(String id) {
        Integer place = places.get(id);
        if (place != null) {
            returned.put(place, true);
        }
    }

    private synchronized void settle(long number, boolean multiple, boolean taken) {
        Map<Long, Integer> settled = multiple ? open.headMap(number, true) : open.subMap(number, true, number, true);
        for (int place : settled.values()) {
            if (!taken) {
                refused = true;
            } else if (!returned.containsKey(place)) {
                results.confirmed(place);
            }
        }
        settled.clear();
        heard = System.nanoTime();
        notifyAll();
    }

    private synchronized void close(ShutdownSignalException why) {
        closed = why;
        notifyAll();
    }

    /** True once all are settled, or the channel is closed; false if nothing at all is settled for so long. */
    synchronized boolean await(long millis) throws InterruptedException {
        heard = System.nanoTime();
        while (!open.isEmpty() && closed == null) {
            long left = millis - (System.nanoTime() - heard) / 1_000_000;
            if (left <= 0) {
                return false;
            }
            wait(left);
        }
        return true;
    }

    /** Why the channel is closed while something was open; null if all is settled. */
    synchronized ShutdownSignalException closed() {
        return open.isEmpty() ? null : closed;
    }

    synchronized boolean returned() {
        return !returned.isEmpty();
    }

    synchronized boolean refused() {
        return refused;
    }
}
