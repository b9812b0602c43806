package dev.notifier.keycloak;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Clients that Keycloak is signing out of a session just now, whatever becomes of the session.
 *
 * Keycloak says so in the request, but writes the tables elsewhere, in some versions in another session of its own: what comes
 * there is told from a client's own revocation by this.
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
