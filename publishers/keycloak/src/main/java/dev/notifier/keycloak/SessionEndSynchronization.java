package dev.notifier.keycloak;

import dev.notifier.keycloak.SessionReader.SessionRow;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.outbox.OutboxEntry;
import jakarta.transaction.RollbackException;
import jakarta.transaction.Status;
import jakarta.transaction.Synchronization;
import jakarta.transaction.SystemException;
import jakarta.transaction.Transaction;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.keycloak.models.KeycloakSession;
import org.keycloak.transaction.JtaTransactionManagerLookup;

/**
 * Collects the session ends of one database transaction. Stores their events in the outbox before the commit, and queues them after it.
 *
 * The transaction is JTA's rather than Keycloak's: some versions delete sessions while Keycloak's own transactions are being
 * committed, when no further one can be enlisted.
 */
final class SessionEndSynchronization implements Synchronization {
    private static final int PAGE_SIZE = 500;

    private final KeycloakSession session;
    private final KeycloakPublisher publisher;
    private final Transaction transaction;
    private final SessionEventFactory eventFactory;
    private final BulkDeletionPublisher bulkDeletions;
    private final Map<SessionId, List<OutgoingEvent>> sessionEvents = new LinkedHashMap<>();
    private final Map<SessionId, List<OutgoingEvent>> clientEvents = new LinkedHashMap<>();
    private final Set<String> movedOffline = new HashSet<>();
    private final List<OutgoingEvent> disabledUserEvents = new ArrayList<>();
    private OutboxEntry deletionEntry;
    private OutboxEntry disabledUserEntry;

    private SessionEndSynchronization(KeycloakSession session, KeycloakPublisher publisher, Transaction transaction) {
        this.session = session;
        this.publisher = publisher;
        this.transaction = transaction;
        this.eventFactory = new SessionEventFactory(session, publisher);
        this.bulkDeletions = new BulkDeletionPublisher(session, publisher);
    }

    /** Registers a synchronization with the current transaction of this session. */
    static SessionEndSynchronization register(KeycloakSession session, KeycloakPublisher publisher) {
        try {
            Transaction transaction = currentTransaction(session);
            if (transaction == null) {
                throw new IllegalStateException("no transaction is active");
            }
            SessionEndSynchronization synchronization = new SessionEndSynchronization(session, publisher, transaction);
            transaction.registerSynchronization(synchronization);
            return synchronization;
        } catch (RollbackException | SystemException failure) {
            throw new IllegalStateException(failure);
        }
    }

    private static Transaction currentTransaction(KeycloakSession session) throws SystemException {
        return session.getProvider(JtaTransactionManagerLookup.class).getTransactionManager().getTransaction();
    }

    /** Returns false once the session has another transaction. */
    boolean belongsToCurrentTransaction() {
        try {
            return transaction.equals(currentTransaction(session));
        } catch (SystemException failure) {
            return false;
        }
    }

    /** Collects a session that is about to be deleted. */
    void onSessionDeletion(String id, boolean offline) {
        SessionRow row = SessionReader.find(session, id, offline);
        if (row != null) {
            sessionEvents.put(new SessionId(id, offline), eventFactory.create(row, Lane.EVENTS, null));
        }
    }

    /** Collects the sign-out of one client. The session continues, unless this transaction deletes it too: then its own event suffices. */
    void onClientSignOut(String id, String client, boolean offline) {
        SessionRow row = SessionReader.find(session, id, offline);
        if (row != null) {
            clientEvents.computeIfAbsent(new SessionId(id, offline), key -> new ArrayList<>()).addAll(eventFactory.createForClient(row, client));
        }
    }

    /**
     * Excludes a session that is replaced by an offline session with the same id, at the first sign-in with `offline_access`. The
     * deletion of its row is not a session end.
     */
    void onMovedOffline(String id) {
        movedOffline.add(id);
    }

    /** Prepares the events of sessions that may be about to be deleted. */
    void onBulkDeletion(SessionCriteria criteria, Lane lane, String reason) {
        bulkDeletions.prepare(eventFactory, criteria, lane, reason);
    }

    /** Prepares the events of sessions that started while the sessions of a realm were being deleted. */
    void onAllDeleted() {
        bulkDeletions.prepareLateSessions();
    }

    /**
     * Collects the sessions of a disabled user whom an administrator has updated. They continue in Keycloak, so each further update
     * notifies their clients again: neither the admin event nor the user contains the former state.
     */
    void onDisabledUserUpdate(SessionCriteria criteria) {
        for (int kind = 0; kind < criteria.kinds().size(); kind++) {
            SessionReader.forEachPage(session, criteria, kind, PAGE_SIZE, page -> page.forEach(row -> disabledUserEvents.addAll(
                    eventFactory.createForDisabledUser(row).stream().map(OutgoingEvent::withoutLookup).toList())));
        }
    }

    @Override
    public void beforeCompletion() {
        publisher.runGuarded("writing events", () -> {
            movedOffline.forEach(id -> sessionEvents.remove(new SessionId(id, false)));
            clientEvents.keySet().removeAll(sessionEvents.keySet());
            List<OutgoingEvent> events = new ArrayList<>();
            sessionEvents.values().forEach(events::addAll);
            clientEvents.values().forEach(events::addAll);
            if (!events.isEmpty()) {
                deletionEntry = publisher.outbox().prepare(events);
            }
            if (!disabledUserEvents.isEmpty()) {
                disabledUserEntry = publisher.outbox().prepare(disabledUserEvents);
            }
        });
    }

    @Override
    public void afterCompletion(int status) {
        publisher.runGuarded("handing events over", () -> {
            boolean committed = status == Status.STATUS_COMMITTED;
            bulkDeletions.complete(committed);
            if (deletionEntry != null && committed) {
                publisher.outbox().commit(deletionEntry);
            } else if (deletionEntry != null) {
                publisher.outbox().lookUp(deletionEntry, false); // the database may have committed before the connection broke
            }
            if (disabledUserEntry != null && committed) {
                publisher.outbox().commit(disabledUserEntry);
            } else if (disabledUserEntry != null) {
                publisher.outbox().rollBack(disabledUserEntry);
            }
        });
    }

    private record SessionId(String id, boolean offline) {
    }
}
