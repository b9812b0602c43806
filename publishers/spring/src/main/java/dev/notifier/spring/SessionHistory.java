package dev.notifier.spring;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Remembers which sessions have lately ended or got another id at this process. Otherwise a row that is written late, because the database
 * is slow or two requests of a browser run at once, would stay at a session that nobody ends any more.
 */
final class SessionHistory {
    private static final int MAX_CHANGES = 20_000; // of some 200 bytes: 3 minutes at 100 sign-outs per second
    private static final String ENDED = "";

    /** The next key of a session, or that it has ended. */
    private final Map<String, String> changes = new LinkedHashMap<>();

    synchronized void onMoved(String fromKey, String toKey) {
        changes.remove(toKey); // a chain of keys has no cycle
        put(fromKey, toKey);
    }

    synchronized void onEnded(String key) {
        put(key, ENDED);
    }

    private void put(String key, String change) {
        changes.remove(key);
        changes.put(key, change);
        if (changes.size() > MAX_CHANGES) {
            changes.remove(changes.keySet().iterator().next());
        }
    }

    /** Returns the current key of a session. */
    synchronized String follow(String key) {
        String next = changes.getOrDefault(key, ENDED);
        return next.equals(ENDED) ? key : follow(next);
    }

    synchronized boolean hasEnded(String key) {
        return ENDED.equals(changes.get(key));
    }
}
