package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.notifier.keycloak.Rows.ClientRow;
import dev.notifier.keycloak.Rows.SessionRow;
import dev.notifier.keycloak.event.Ending;
import dev.notifier.keycloak.event.Lane;
import dev.notifier.keycloak.event.SessionEnded;
import dev.notifier.keycloak.event.SessionKey;
import dev.notifier.keycloak.outbox.Slip;
import jakarta.transaction.RollbackException;
import jakarta.transaction.Status;
import jakarta.transaction.Synchronization;
import jakarta.transaction.SystemException;
import jakarta.transaction.Transaction;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Predicate;
import org.keycloak.common.util.Time;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.RealmModel;
import org.keycloak.models.utils.KeycloakModelUtils;
import org.keycloak.transaction.JtaTransactionManagerLookup;

/**
 * What ends in one transaction of the database. It is on disk before the commit, and published after it.
 *
 * The transaction is JTA's own: in some versions Keycloak deletes sessions while its own list of transactions is already being
 * worked off, and takes no further one.
 */
final class Endings implements Synchronization {
    private static final int PAGE = 500;

    /** Seconds between the clocks of two nodes. */
    private static final int CLOCKS_DIFFER = 60;

    private final KeycloakSession session;
    private final Publisher publisher;
    private final Transaction transaction;
    private final Map<String, Optional<Clients>> clients = new HashMap<>();
    private final Map<String, List<Ending>> ended = new LinkedHashMap<>();
    private final Map<String, List<Ending>> parted = new LinkedHashMap<>();
    private final Set<String> wentOffline = new HashSet<>();
    private final List<Slip> mass = new ArrayList<>();
    private final List<Ending> told = new ArrayList<>();
    private Runnable late;
    private Slip written;
    private Slip writtenTold;

    private Endings(KeycloakSession session, Publisher publisher, Transaction transaction) {
        this.session = session;
        this.publisher = publisher;
        this.transaction = transaction;
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
            ended.put(name(id, offline), endings(row, null, Lane.EVENTS, null, null));
        }
    }

    /** Keycloak signs one client out of a session that lives on. */
    void parted(String id, String client, boolean offline) {
        SessionRow row = Rows.session(session, id, offline);
        if (row != null) {
            parted.merge(name(id, offline), endings(row, null, Lane.EVENTS, null, client), (one, other) -> {
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
        int since = Time.currentTime() - CLOCKS_DIFFER;
        Set<String> young = new HashSet<>();
        mass(session, candidates, reason, row -> row.createdOn() < since || young.add(name(row.id(), row.offline())));
        late = () -> KeycloakModelUtils.runJobInTransaction(session.getKeycloakSessionFactory(),
                other -> mass(other, candidates.thatBeganSince(since), reason, row -> young.add(name(row.id(), row.offline()))));
    }

    /**
     * All sessions of `mass` are deleted, and who signed in while they were read is deleted with them. Another transaction sees
     * those too, as long as this one is not committed.
     */
    void late() {
        Runnable others = late;
        late = null;
        if (others != null) {
            others.run();
        }
    }

    private void mass(KeycloakSession reader, Candidates candidates, String reason, Predicate<SessionRow> wanted) {
        for (int kind = 0; kind < candidates.kinds().size(); kind++) {
            String after = "";
            List<SessionRow> page;
            do {
                page = Rows.page(reader, candidates, kind, after, PAGE);
                List<Ending> endings = new ArrayList<>();
                page.stream().filter(wanted).forEach(each -> endings.addAll(endings(each, candidates.realm(), Lane.BULK, reason, null)));
                if (!endings.isEmpty()) {
                    Slip slip = publisher.outbox().prepare(endings);
                    if (slip != null) {
                        mass.add(slip);
                    }
                }
                after = page.isEmpty() ? after : page.get(page.size() - 1).id();
            } while (page.size() == PAGE);
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
                    told.addAll(endings(row, null, Lane.EVENTS, "terminated", null, salt).stream().map(Ending::notToBeLookedUp).toList());
                }
                after = page.isEmpty() ? after : page.get(page.size() - 1).id();
            } while (page.size() == PAGE);
        }
    }

    private List<Ending> endings(SessionRow row, RealmModel removed, Lane lane, String reason, String only) {
        return endings(row, removed, lane, reason, only, "");
    }

    /**
     * The events of a session.
     *
     * @param removed the realm, where it may be gone from the database already
     * @param only one client, by Keycloak's internal id; null for all
     */
    private List<Ending> endings(SessionRow row, RealmModel removed, Lane lane, String reason, String only, String salt) {
        Clients known = clients.computeIfAbsent(row.realm(), id -> Optional.ofNullable(clientsOf(id, removed))).orElse(null);
        if (known == null) {
            return List.of();
        }
        Map<String, List<ObjectNode>> byIssuer = new LinkedHashMap<>();
        StringBuilder salted = new StringBuilder(salt);
        for (ClientRow client : row.clients()) {
            ObjectNode entry = only == null || only.equals(client.client()) ? entry(known, client, row.user()) : null;
            if (entry != null) {
                byIssuer.computeIfAbsent(client.issuer(), key -> new ArrayList<>()).add(entry);
                salted.append(only == null ? "" : String.valueOf(client.timestamp()));
            }
        }
        SessionKey key = new SessionKey(row.id(), row.createdOn(), row.offline(), only);
        Instant now = Instant.now().truncatedTo(ChronoUnit.MILLIS);
        List<Ending> found = new ArrayList<>();
        byIssuer.forEach((issuer, entries) -> {
            if (!entries.stream().allMatch(Clients::isNobody)) {
                found.addAll(new SessionEnded(key, issuer, row.user(), entries, now, reason, salted.toString()).endings(lane));
            }
        });
        return found;
    }

    /** One client that cannot be read takes no other with it. */
    private ObjectNode entry(Clients known, ClientRow client, String user) {
        ObjectNode[] entry = new ObjectNode[1];
        publisher.guarded("reading a client", () -> entry[0] = known.entry(client.client(), client.issuer(), user));
        return entry[0]; // null of one that is deleted, or none of OpenID Connect
    }

    /** The realm is read anew: that of the request may belong to a transaction that is over. Null if its endings are not told. */
    private Clients clientsOf(String id, RealmModel removed) {
        RealmModel realm = session.realms().getRealm(id);
        String name = realm != null ? realm.getName() : removed == null ? null : removed.getName();
        return name == null || !publisher.settings().tells(name) ? null : new Clients(session, realm, publisher.settings().includeClientMetadata());
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
            mass.forEach(publisher.outbox()::lookUp);
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
