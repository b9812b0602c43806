package dev.notifier.keycloak;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Clients that Keycloak is currently signing out of a session, whether or not the session ends.
 *
 * The request shows this, but Keycloak writes the tables elsewhere, in some versions in a separate session. These entries
 * distinguish such writes from a revocation by the client.
 */
final class Partings {
    private static final int MOST = 10_000;

    private final Map<Parting, Boolean> open = new ConcurrentHashMap<>();

    void begin(Parting parting) {
        if (open.size() < MOST) {
            open.put(parting, true);
        }
    }

    boolean isOpen(String session, String client, boolean offline) {
        return open.containsKey(new Parting(session, client, offline));
    }

    void end(Parting parting) {
        open.remove(parting);
    }

    /** @param client Keycloak's internal id */
    record Parting(String session, String client, boolean offline) {
    }
}
