package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.SessionKey;
import java.util.Collection;
import java.util.Set;

/** Keycloak's table of sessions, read in a separate transaction. */
@FunctionalInterface
public interface SessionLookup {
    /**
     * Those of the sessions that live.
     *
     * @throws Exception if the database does not answer
     */
    Set<SessionKey> living(Collection<SessionKey> sessions) throws Exception;
}
