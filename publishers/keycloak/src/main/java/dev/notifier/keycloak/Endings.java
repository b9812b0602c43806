package dev.notifier.keycloak;

import dev.notifier.keycloak.Rows.SessionRow;
import dev.notifier.keycloak.event.Ending;
import dev.notifier.keycloak.event.Lane;
import dev.notifier.keycloak.outbox.Slip;
import dev.notifier.keycloak.watch.Daemons;
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
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.function.Predicate;
import org.jboss.logging.Logger;
import org.keycloak.common.util.Time;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.utils.KeycloakModelUtils;
import org.keycloak.transaction.JtaTransactionManagerLookup;

/**
 * What ends in one transaction of the database. It is on disk before the commit, and published after it.
 *
 * The transaction is JTA's own: in some versions Keycloak deletes sessions while its own list of transactions is already being
 * worked off, and takes no further one.
 */
final class Endings implements Synchronization {
    private static final Logger LOG = Logger.getLogger(Endings.class);
    private static final int PAGE = 500;

    /** Seconds between the clocks of two nodes. */
    private static final int CLOCKS_DIFFER = 60;

    private final KeycloakSession session;
    private final Publisher publisher;
    private final Transaction transaction;
    private final SessionEvents events;
    private final Map<String, List<Ending>> ended = new LinkedHashMap<>();
    private final Map<String, List<Ending>> parted = new LinkedHashMap<>();
    private final Set<String> wentOffline = new HashSet<>();
    private final Queue<Slip> mass = new ConcurrentLinkedQueue<>();
    private final List<Ending> told = new ArrayList<>();
    private Runnable late;
    private volatile boolean over;
    private volatile boolean completed;
    private Slip written;
    private Slip writtenTold;

    private Endings(KeycloakSession session, Publisher publisher, Transaction transaction) {
        this.session = session;
        this.publisher = publisher;
        this.transaction = transaction;
        this.events = new SessionEvents(session, publisher);
    }

    /** Those of the transaction that runs in this session. */
    static Endings enlisted(KeycloakSession session, Publisher publisher) {
        try {
            Transaction running = running(session);
            if (running == null) {
                throw new IllegalStateException("no transaction is running");
            }
            Endings made = new Endings(session, publisher, running);
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
        SessionRow row = Rows.session(session, id, offline);
        if (row != null) {
            ended.put(name(id, offline), events.of(row, null, Lane.EVENTS, null, null, ""));
        }
    }

    /** Keycloak signs one client out of a session that lives on. */
    void parted(String id, String client, boolean offline) {
        SessionRow row = Rows.session(session, id, offline);
        if (row != null) {
            parted.merge(name(id, offline), events.of(row, null, Lane.EVENTS, null, client, ""), (one, other) -> {
                List<Ending> both = new ArrayList<>(one);
                both.addAll(other);
                return both;
            });
        }
    }

    /** The first sign-in with `offline_access`: Keycloak makes the session an offline one of the same id. It is no end. */
    void wentOffline(String id) {
        wentOffline.add(id);
    }

    /** Many sessions may be about to be deleted. Those that are gone afterwards are told. */
    void mass(Candidates candidates, String reason) {
        int since = (int) (Time.currentTimeMillis() / 1000) - CLOCKS_DIFFER;
        Set<String> young = new HashSet<>();
        mass(events, candidates, reason, row -> row.createdOn() < since || young.add(name(row.id(), row.offline())));
        late = () -> KeycloakModelUtils.runJobInTransaction(session.getKeycloakSessionFactory(), other -> mass(new SessionEvents(other, publisher),
                candidates.thatBeganSince(since), reason, row -> !over && young.add(name(row.id(), row.offline()))));
    }

    /**
     * All sessions of `mass` are deleted, and who signed in while they were read is deleted with them. Another transaction sees
     * those too, as long as this one is not committed. It has a thread and a limit of its own: some databases let readers wait for
     * what is being deleted, and a pool may have no further connection.
     */
    void late() {
        Runnable others = late;
        late = null;
        if (others == null) {
            return;
        }
        Thread reading = Daemons.named("notifier-late").newThread(() -> publisher.guarded("reading who signed in meanwhile", others));
        reading.start();
        try {
            reading.join(publisher.settings().outbox().signOutLimit().toMillis());
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
        over = reading.isAlive();
        if (over) {
            LOG.warn("notifier: whoever signed in while all sessions were being ended is perhaps not told, since the database does not answer within sign-out-limit");
        }
    }

    private void mass(SessionEvents from, Candidates candidates, String reason, Predicate<SessionRow> wanted) {
        for (int kind = 0; kind < candidates.kinds().size(); kind++) {
            String after = "";
            List<SessionRow> page;
            do {
                page = Rows.page(from.session(), candidates, kind, after, PAGE);
                List<Ending> endings = new ArrayList<>();
                page.stream().filter(wanted).forEach(each -> endings.addAll(from.of(each, candidates.realm(), Lane.BULK, reason, null, "")));
                Slip slip = endings.isEmpty() ? null : publisher.outbox().prepare(endings);
                if (slip != null) {
                    mass.add(slip);
                    if (completed) { // the limit was over before this was read
                        lookUpMass();
                    }
                }
                after = page.isEmpty() ? after : page.get(page.size() - 1).id();
            } while (page.size() == PAGE);
        }
    }

    private void lookUpMass() {
        for (Slip slip = mass.poll(); slip != null; slip = mass.poll()) {
            publisher.outbox().lookUp(slip);
        }
    }

    /** A user is disabled. The sessions live on in Keycloak, but not at the clients. */
    void disabled(Candidates candidates) {
        for (int kind = 0; kind < candidates.kinds().size(); kind++) {
            String after = "";
            List<SessionRow> page;
            do {
                page = Rows.page(session, candidates, kind, after, PAGE);
                for (SessionRow row : page) {
                    String salt = "disabled" + System.currentTimeMillis();
                    told.addAll(events.of(row, null, Lane.EVENTS, "terminated", null, salt).stream().map(Ending::notToBeLookedUp).toList());
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
            List<Ending> all = new ArrayList<>();
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
            completed = true;
            lookUpMass();
            boolean committed = status == Status.STATUS_COMMITTED;
            if (written != null && committed) {
                publisher.outbox().happened(written);
            } else if (written != null) {
                publisher.outbox().lookUp(written); // it may have been committed even so, if the connection broke
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
