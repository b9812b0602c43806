package dev.notifier.publisher.monitoring;

import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/** Limits repeated log lines: the first line of each cause is logged at once, further ones once per interval. */
public final class LogThrottle {
    private static final int MAX_CAUSES = 1_000;

    private final long intervalNanos;
    private final Map<String, Long> nextByCause = new ConcurrentHashMap<>();

    public LogThrottle(Duration interval) {
        this.intervalNanos = interval.toNanos();
    }

    /** Returns true if a line of this cause may be logged now, and starts the next interval in that case. */
    public boolean tryAcquire(String cause) {
        long now = System.nanoTime();
        if (nextByCause.size() > MAX_CAUSES) {
            nextByCause.clear();
        }
        boolean[] acquired = {false};
        nextByCause.compute(cause, (key, next) -> {
            if (next == null || now - next >= 0) {
                acquired[0] = true;
                return now + intervalNanos;
            }
            return next;
        });
        return acquired[0];
    }
}
