package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.SessionKey;
import java.util.Collection;
import java.util.Set;

/** Looks up sessions in the identity server's store, in a separate transaction. */
@FunctionalInterface
public interface SessionLookup {
    /**
     * Returns those of the sessions that have not ended.
     *
     * @throws Exception if the store does not answer; the outbox tries again
     */
    Set<SessionKey> findLiving(Collection<SessionKey> sessions) throws Exception;
}
