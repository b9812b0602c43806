package dev.notifier.keycloak;

import dev.notifier.keycloak.SessionTable.SessionRow;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.outbox.OutboxEntry;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.function.Predicate;
import org.jboss.logging.Logger;
import org.keycloak.common.util.Time;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.utils.KeycloakModelUtils;

/**
 * Many sessions that may be about to be deleted in one transaction: the sessions of a realm or a user, or expired sessions.
 *
 * They are read in pages. A page is one file, written while the next page is read, so that two are in memory at the most. Which
 * of the sessions are gone is looked up after the commit.
 */
final class BulkSessionDeletion {
    private static final Logger LOG = Logger.getLogger(BulkSessionDeletion.class);

    /** Sessions. On a busy machine each page waits several times for its turn. */
    private static final int PAGE = 2_000;

    /** Seconds between the clocks of two nodes. */
    private static final int CLOCKS_DIFFER = 60;

    private final KeycloakSession session;
    private final Publisher publisher;
    private final Queue<OutboxEntry> written = new ConcurrentLinkedQueue<>();
    private Runnable late;
    private volatile boolean over;
    private volatile boolean committed;
    private volatile boolean completed;

    BulkSessionDeletion(KeycloakSession session, Publisher publisher) {
        this.session = session;
        this.publisher = publisher;
    }

    /** Read sessions that may be about to be deleted. The events of deleted sessions are published. */
    void read(SessionEventFactory events, SessionCriteria candidates, Lane lane, String reason) {
        int since = (int) (Time.currentTimeMillis() / 1000) - CLOCKS_DIFFER;
        Set<String> young = new HashSet<>();
        read(events, candidates, lane, reason, row -> row.createdOn() < since || young.add(name(row)));
        late = () -> KeycloakModelUtils.runJobInTransaction(session.getKeycloakSessionFactory(), other -> read(new SessionEventFactory(other, publisher),
                candidates.thatBeganSince(since), lane, reason, row -> !over && young.add(name(row))));
    }

    /**
     * Read the sessions of users who signed in meanwhile, which are deleted too. Another transaction sees them until this one has
     * committed. It has a separate thread and a limit, because in some databases readers wait for rows that are being deleted,
     * and the pool may have no free connection.
     */
    void readLate() {
        Runnable others = late;
        late = null;
        if (others == null) {
            return;
        }
        Thread reading = new DaemonThreadFactory("notifier-late").newThread(() -> publisher.guarded("reading who signed in meanwhile", others));
        reading.start();
        try {
            reading.join(publisher.settings().outbox().signOutLimit().toMillis());
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
        over = reading.isAlive();
        if (over) {
            LOG.warn("notifier: sessions that began while all sessions were being ended may not be published, because the database does not answer within sign-out-limit");
        }
    }

    private void read(SessionEventFactory events, SessionCriteria candidates, Lane lane, String reason, Predicate<SessionRow> wanted) {
        CompletableFuture<Void> writing = CompletableFuture.completedFuture(null);
        try {
            for (int kind = 0; kind < candidates.kinds().size(); kind++) {
                String after = "";
                List<SessionRow> page;
                do {
                    page = SessionTable.page(events.session(), candidates, kind, after, PAGE);
                    List<OutgoingEvent> events = new ArrayList<>();
                    page.stream().filter(wanted).forEach(each -> events.addAll(events.of(each, candidates.realm(), lane, reason, null, "")));
                    writing.join();
                    writing = CompletableFuture.runAsync(() -> write(events), task -> new DaemonThreadFactory("notifier-mass").newThread(task).start());
                    after = page.isEmpty() ? after : page.get(page.size() - 1).id();
                } while (page.size() == PAGE);
            }
        } finally {
            writing.join();
        }
    }

    private void write(List<OutgoingEvent> events) {
        OutboxEntry entry = events.isEmpty() ? null : publisher.outbox().prepare(events);
        if (entry != null) {
            written.add(entry);
        }
        if (completed) { // the limit was over before this was read
            lookUp();
        }
    }

    /** The transaction is over, however it went. */
    void complete(boolean andCommitted) {
        committed = andCommitted;
        completed = true;
        lookUp();
    }

    private void lookUp() {
        for (OutboxEntry entry = written.poll(); entry != null; entry = written.poll()) {
            publisher.outbox().lookUp(entry, committed);
        }
    }

    private static String name(SessionRow row) {
        return row.id() + (row.offline() ? "\noffline" : "");
    }
}
