package dev.notifier.keycloak;

import dev.notifier.keycloak.SessionReader.SessionRow;
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
 * Publishes the ends of many sessions that one transaction deletes: all sessions of a realm or a user, or expired ones.
 *
 * Before the deletion, the sessions that it may delete are read in pages. The events of a page are one file of the outbox, which
 * is written while the next page is read, so that the events of at most two pages are in memory. After the transaction, the
 * outbox looks up which sessions are deleted.
 */
final class BulkDeletionPublisher {
    private static final Logger LOG = Logger.getLogger("dev.notifier.keycloak.MassEndings");

    /** In sessions. Smaller pages take longer in total: on a busy machine, each page waits several times for the CPU. */
    private static final int PAGE_SIZE = 2_000;

    private static final int MAX_CLOCK_DIFFERENCE_SECONDS = 60; // between two nodes

    private final KeycloakSession session;
    private final KeycloakPublisher publisher;
    private final Queue<OutboxEntry> prepared = new ConcurrentLinkedQueue<>();
    private Runnable lateRead;
    private volatile boolean lateReadTimedOut;
    private volatile boolean committed;
    private volatile boolean completed;

    BulkDeletionPublisher(KeycloakSession session, KeycloakPublisher publisher) {
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
     * Prepares the events of sessions that started during `prepare` and may be deleted as well. Reads them in a separate
     * transaction, which finds them until this one commits, on another thread and within sign-out-limit: some databases let it
     * wait for the deleted rows, and the connection pool may be exhausted.
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
            LOG.warn("notifier: the ends of sessions that started during a mass logout may not be published: the database did not respond within sign-out-limit");
        }
    }

    private void prepare(SessionEventFactory eventFactory, SessionCriteria criteria, Lane lane, String reason, Predicate<SessionRow> filter) {
        PageWriter writer = new PageWriter();
        try {
            for (int kind = 0; kind < criteria.kinds().size(); kind++) {
                SessionReader.forEachPage(eventFactory.session(), criteria, kind, PAGE_SIZE, page -> writer.write(page.stream().filter(filter)
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

    /** Looks up the prepared sessions, because the transaction has ended. */
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
