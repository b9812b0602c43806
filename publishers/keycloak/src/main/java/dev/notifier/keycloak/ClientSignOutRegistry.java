package dev.notifier.keycloak;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Clients that Keycloak is currently signing out of a session, whether or not the session ends.
 *
 * The request shows this, but Keycloak writes the tables elsewhere, in some versions in a separate session. These entries
 * distinguish such writes from a revocation by the client.
 */
final class ClientSignOutRegistry {
    private static final int MOST = 10_000;

    private final Map<ClientSignOut, Boolean> open = new ConcurrentHashMap<>();

    void begin(ClientSignOut signOut) {
        if (open.size() < MOST) {
            open.put(signOut, true);
        }
    }

    boolean isOpen(String session, String client, boolean offline) {
        return open.containsKey(new ClientSignOut(session, client, offline));
    }

    void end(ClientSignOut signOut) {
        open.remove(signOut);
    }

    /** @param client Keycloak's internal id */
    record ClientSignOut(String session, String client, boolean offline) {
    }
}
