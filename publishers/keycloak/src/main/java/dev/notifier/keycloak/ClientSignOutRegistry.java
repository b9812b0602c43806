package dev.notifier.keycloak;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * The clients that Keycloak is signing out of a session at present.
 *
 * Keycloak deletes a client's row at a sign-out, and also when the client revokes its tokens. The registry distinguishes the
 * two. It belongs to the process, because some versions delete the row in another Keycloak session than the request's.
 */
final class ClientSignOutRegistry {
    private static final int MAX_SIGN_OUTS = 10_000;

    private final Map<ClientSignOut, Boolean> current = new ConcurrentHashMap<>();

    void begin(ClientSignOut signOut) {
        if (current.size() < MAX_SIGN_OUTS) {
            current.put(signOut, true);
        }
    }

    boolean contains(ClientSignOut signOut) {
        return current.containsKey(signOut);
    }

    void end(ClientSignOut signOut) {
        current.remove(signOut);
    }

    /**
     * The sign-out of one client from a session.
     *
     * @param client Keycloak's internal id
     */
    record ClientSignOut(String session, String client, boolean offline) {
    }
}
