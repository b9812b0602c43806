package dev.notifier.publisher.monitoring;

import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/** Says when something may be logged again: each cause at once, and then once in a while. */
public final class LogThrottle {
    private static final int MOST_CAUSES = 1_000;

    private final long pause;
    private final Map<String, Long> next = new ConcurrentHashMap<>();

    public LogThrottle(Duration pause) {
        this.pause = pause.toNanos();
    }

    /** True for the first time, and once a pause afterwards. */
    public boolean allows(String cause) {
        long now = System.nanoTime();
        if (next.size() > MOST_CAUSES) {
            next.clear();
        }
        boolean[] allowed = {false};
        next.compute(cause, (key, due) -> {
            if (due == null || now - due >= 0) {
                allowed[0] = true;
                return now + pause;
            }
            return due;
        });
        return allowed[0];
    }
}
