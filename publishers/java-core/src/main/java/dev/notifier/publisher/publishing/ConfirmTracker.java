package dev.notifier.publisher.publishing;

import com.rabbitmq.client.Channel;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/** Tracks which messages of a channel the broker has confirmed, returned as unroutable, or rejected. */
final class ConfirmTracker {
    private final TreeMap<Long, Integer> unsettled = new TreeMap<>(); // index by delivery tag
    private final Map<String, Integer> indexById = new HashMap<>();
    private final Set<Integer> returned = new HashSet<>();
    private Transport.ResultListener results;
    private long nextTag;
    private long lastSettledAt;
    private boolean hasRejected;
    private ShutdownSignalException shutdown;

    ConfirmTracker(Channel channel) throws IOException {
        channel.addConfirmListener((tag, multiple) -> settle(tag, multiple, true), (tag, multiple) -> settle(tag, multiple, false));
        channel.addReturnListener(message -> onReturned(message.getProperties().getMessageId()));
        channel.addShutdownListener(this::onShutdown);
        channel.confirmSelect();
    }

    /** Starts a batch. The caller has awaited the previous one. */
    synchronized void startBatch(Transport.ResultListener listener, long firstTag) {
        unsettled.clear();
        indexById.clear();
        returned.clear();
        hasRejected = false;
        results = listener;
        nextTag = firstTag;
    }

    /** The next message is about to be sent. */
    synchronized void onSending(int index, String id) {
        unsettled.put(nextTag++, index);
        indexById.put(id, index);
    }

    private synchronized void onReturned(String id) {
        Integer index = indexById.get(id);
        if (index != null) {
            returned.add(index);
        }
    }

    private synchronized void settle(long tag, boolean multiple, boolean accepted) {
        Map<Long, Integer> settled = multiple ? unsettled.headMap(tag, true) : unsettled.subMap(tag, true, tag, true);
        for (int index : settled.values()) {
            if (!accepted) {
                hasRejected = true;
            } else if (!returned.contains(index)) {
                results.onConfirmed(index);
            }
        }
        settled.clear();
        lastSettledAt = System.nanoTime();
        notifyAll();
    }

    private synchronized void onShutdown(ShutdownSignalException cause) {
        shutdown = cause;
        notifyAll();
    }

    /** Waits until all messages are settled or the channel is closed. Returns false if none is settled for this time. */
    synchronized boolean await(long maxSilenceMillis) throws InterruptedException {
        lastSettledAt = System.nanoTime();
        while (!unsettled.isEmpty() && shutdown == null) {
            long remaining = maxSilenceMillis - (System.nanoTime() - lastSettledAt) / 1_000_000;
            if (remaining <= 0) {
                return false;
            }
            wait(remaining);
        }
        return true;
    }

    /** Returns why the channel was closed before all messages were settled; null if all are settled. */
    synchronized ShutdownSignalException shutdownCause() {
        return unsettled.isEmpty() ? null : shutdown;
    }

    synchronized boolean hasReturned() {
        return !returned.isEmpty();
    }

    synchronized boolean hasRejected() {
        return hasRejected;
    }
}
