package dev.notifier.keycloak;

import dev.notifier.keycloak.SessionTable.SessionRow;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import dev.notifier.publisher.outbox.OutboxEntry;
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
 * Publishes the deletion of many sessions in one transaction: all sessions of a realm or a user, or expired ones.
 *
 * Before the deletion, all candidates are read in pages. Each page becomes one file, which is written while the next page is
 * read, so that at most two pages are in memory. After the commit, the outbox looks up which of the sessions are gone.
 */
final class BulkSessionDeletion {
    private static final Logger LOG = Logger.getLogger("dev.notifier.keycloak.MassEndings");

    /** Sessions. Smaller pages take longer: on a busy machine each page waits several times for the CPU. */
    private static final int PAGE_SIZE = 2_000;

    private static final int MAX_CLOCK_DIFFERENCE_SECONDS = 60; // between two nodes

    private final KeycloakSession session;
    private final KeycloakPublisher publisher;
    private final Queue<OutboxEntry> prepared = new ConcurrentLinkedQueue<>();
    private Runnable lateRead;
    private volatile boolean lateReadTimedOut;
    private volatile boolean committed;
    private volatile boolean completed;

    BulkSessionDeletion(KeycloakSession session, KeycloakPublisher publisher) {
        this.session = session;
        this.publisher = publisher;
    }

    /** Reads the sessions that may be about to be deleted, and writes their events. */
    void prepare(SessionEventFactory eventFactory, SessionCriteria criteria, Lane lane, String reason) {
        int since = (int) (Time.currentTimeMillis() / 1000) - MAX_CLOCK_DIFFERENCE_SECONDS;
        Set<String> recent = new HashSet<>();
        prepare(eventFactory, criteria, lane, reason, row -> row.createdOn() < since || recent.add(rowName(row)));
        lateRead = () -> KeycloakModelUtils.runJobInTransaction(session.getKeycloakSessionFactory(), other -> prepare(
                new SessionEventFactory(other, publisher), criteria.startedSince(since), lane, reason, row -> !lateReadTimedOut && recent.add(rowName(row))));
    }

    /**
     * Reads the sessions that have started since `prepare`, and have been deleted too. Another transaction still finds them until
     * this one commits. It has its own thread and a limit: in some databases it waits for rows that are being deleted, and the
     * connection pool may be exhausted.
     */
    void prepareLateSessions() {
        Runnable task = lateRead;
        lateRead = null;
        if (task == null) {
            return;
        }
        Thread thread = new DaemonThreadFactory("notifier-late").newThread(() -> publisher.runGuarded("reading sessions that started meanwhile", task));
        thread.start();
        try {
            thread.join(publisher.settings().outbox().signOutLimit().toMillis());
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
        lateReadTimedOut = thread.isAlive();
        if (lateReadTimedOut) {
            LOG.warn("notifier: sessions that began while all sessions were being ended may not be published, because the database does not answer within sign-out-limit");
        }
    }

    private void prepare(SessionEventFactory eventFactory, SessionCriteria criteria, Lane lane, String reason, Predicate<SessionRow> filter) {
        PageWriter writer = new PageWriter();
        try {
            for (int kind = 0; kind < criteria.kinds().size(); kind++) {
                SessionTable.forEachPage(eventFactory.session(), criteria, kind, PAGE_SIZE, page -> writer.write(page.stream().filter(filter)
                        .flatMap(row -> eventFactory.create(row, criteria.realm(), lane, reason).stream()).toList()));
            }
        } finally {
            writer.await();
        }
    }

    /** Writes one page at a time, on another thread. */
    private final class PageWriter {
        private CompletableFuture<Void> current = CompletableFuture.completedFuture(null);

        void write(List<OutgoingEvent> events) {
            await();
            current = CompletableFuture.runAsync(() -> prepare(events), task -> new DaemonThreadFactory("notifier-mass").newThread(task).start());
        }

        void await() {
            current.join();
        }
    }

    private void prepare(List<OutgoingEvent> events) {
        OutboxEntry entry = events.isEmpty() ? null : publisher.outbox().prepare(events);
        if (entry != null) {
            prepared.add(entry);
        }
        if (completed) { // the late read had timed out, and the transaction has ended
            lookUpPrepared();
        }
    }

    /** The transaction has ended. */
    void complete(boolean isCommitted) {
        committed = isCommitted;
        completed = true;
        lookUpPrepared();
    }

    private void lookUpPrepared() {
        for (OutboxEntry entry = prepared.poll(); entry != null; entry = prepared.poll()) {
            publisher.outbox().lookUp(entry, committed);
        }
    }

    private static String rowName(SessionRow row) {
        return row.id() + (row.offline() ? "\noffline" : "");
    }
}
