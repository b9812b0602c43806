package dev.notifier.keycloak;

import dev.notifier.keycloak.SessionTable.SessionRow;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.Lane;
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
 * What ends in one transaction of the database. It is on disk before the commit, and published after it.
 *
 * The transaction is JTA's own: in some versions Keycloak deletes sessions while its own list of transactions is already being
 * worked off, and takes no further one.
 */
final class SessionEndSynchronization implements Synchronization {
    private static final int PAGE = 500;

    private final KeycloakSession session;
    private final Publisher publisher;
    private final Transaction transaction;
    private final SessionEventFactory events;
    private final Map<String, List<OutgoingEvent>> ended = new LinkedHashMap<>();
    private final Map<String, List<OutgoingEvent>> parted = new LinkedHashMap<>();
    private final Set<String> wentOffline = new HashSet<>();
    private final BulkSessionDeletion mass;
    private final List<OutgoingEvent> told = new ArrayList<>();
    private OutboxEntry written;
    private OutboxEntry writtenTold;

    private SessionEndSynchronization(KeycloakSession session, Publisher publisher, Transaction transaction) {
        this.session = session;
        this.publisher = publisher;
        this.transaction = transaction;
        this.events = new SessionEventFactory(session, publisher);
        this.mass = new BulkSessionDeletion(session, publisher);
    }

    /** Those of the transaction that runs in this session. */
    static SessionEndSynchronization enlisted(KeycloakSession session, Publisher publisher) {
        try {
            Transaction running = running(session);
            if (running == null) {
                throw new IllegalStateException("no transaction is running");
            }
            SessionEndSynchronization made = new SessionEndSynchronization(session, publisher, running);
            running.registerSynchronization(made);
            return made;
        } catch (RollbackException | SystemException failed) {
            throw new IllegalStateException(failed);
        }
    }

    private static Transaction running(KeycloakSession session) throws SystemException {
        return session.getProvider(JtaTransactionManagerLookup.class).getTransactionManager().getTransaction();
    }

    /** False once another transaction runs in the session. */
    boolean isOfThisTransaction() {
        try {
            return transaction.equals(running(session));
        } catch (SystemException failed) {
            return false;
        }
    }

    /** A session is about to be deleted. */
    void ended(String id, boolean offline) {
        SessionRow row = SessionTable.session(session, id, offline);
        if (row != null) {
            ended.put(name(id, offline), events.of(row, null, Lane.EVENTS, null, null, ""));
        }
    }

    /** Keycloak signs one client out of a session that lives on. */
    void parted(String id, String client, boolean offline) {
        SessionRow row = SessionTable.session(session, id, offline);
        if (row != null) {
            parted.merge(name(id, offline), events.of(row, null, Lane.EVENTS, null, client, ""), (one, other) -> {
                List<OutgoingEvent> both = new ArrayList<>(one);
                both.addAll(other);
                return both;
            });
        }
    }

    /** The first sign-in with `offline_access`: Keycloak makes the session an offline session of the same id. The session does not end. */
    void wentOffline(String id) {
        wentOffline.add(id);
    }

    /** Read many sessions that may be about to be deleted. The events of deleted sessions are published. */
    void mass(SessionCriteria candidates, Lane lane, String reason) {
        mass.read(events, candidates, lane, reason);
    }

    /** All sessions of `mass` are deleted. */
    void late() {
        mass.readLate();
    }

    /** A user is disabled. The sessions live on in Keycloak, but not at the clients. */
    void disabled(SessionCriteria candidates) {
        for (int kind = 0; kind < candidates.kinds().size(); kind++) {
            String after = "";
            List<SessionRow> page;
            do {
                page = SessionTable.page(session, candidates, kind, after, PAGE);
                for (SessionRow row : page) {
                    String salt = "disabled" + System.currentTimeMillis();
                    told.addAll(events.of(row, null, Lane.EVENTS, "terminated", null, salt).stream().map(OutgoingEvent::notToBeLookedUp).toList());
                }
                after = page.isEmpty() ? after : page.get(page.size() - 1).id();
            } while (page.size() == PAGE);
        }
    }

    @Override
    public void beforeCompletion() {
        publisher.guarded("writing endings", () -> {
            wentOffline.forEach(id -> ended.remove(name(id, false)));
            parted.keySet().removeAll(ended.keySet());
            List<OutgoingEvent> all = new ArrayList<>();
            ended.values().forEach(all::addAll);
            parted.values().forEach(all::addAll);
            if (!all.isEmpty()) {
                written = publisher.outbox().prepare(all);
            }
            if (!told.isEmpty()) {
                writtenTold = publisher.outbox().prepare(told);
            }
        });
    }

    @Override
    public void afterCompletion(int status) {
        publisher.guarded("handing endings over", () -> {
            boolean committed = status == Status.STATUS_COMMITTED;
            mass.complete(committed);
            if (written != null && committed) {
                publisher.outbox().happened(written);
            } else if (written != null) {
                publisher.outbox().lookUp(written, false); // it may be committed even so, if the connection broke
            }
            if (writtenTold != null && committed) {
                publisher.outbox().happened(writtenTold);
            } else if (writtenTold != null) {
                publisher.outbox().undone(writtenTold);
            }
        });
    }

    private static String name(String id, boolean offline) {
        return id + (offline ? "\noffline" : "");
    }
}
