package dev.notifier.spring;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.springframework.context.SmartLifecycle;
import org.springframework.security.core.session.SessionInformation;
import org.springframework.security.core.session.SessionRegistry;

/**
 * Starts the publisher before the web server, stops it after it, and publishes in intervals the ends of sessions that no request and no event has reported: expired or deleted in the shared store,
 * expired by an administrator, or in the memory of a process that has ended.
 */
final class SessionSweep implements SmartLifecycle {
    /** A session that is missing twice within this time is not merely about to be saved, or to get another id. */
    private static final Duration CONFIRMATION_DELAY = Duration.ofSeconds(1);
    private static final Duration MIN_NODE_TIMEOUT = Duration.ofMinutes(2);
    private static final int INTERVALS_PER_NODE_TIMEOUT = 4;
    private static final long STOP_LIMIT_SECONDS = 2;

    private final SessionStores stores;
    private final SessionClientStore store;
    private final SharedSessions sessions;
    private final SessionRegistry registry;
    private final NotifierPublisher publisher;
    private final SessionEndPublisher ends;
    private final Duration interval;
    private final Set<String> reportedExpired = new HashSet<>();
    private volatile ScheduledExecutorService thread;

    /** @param registry the sessions that administrators can expire; null without one */
    SessionSweep(SessionStores stores, SessionRegistry registry, NotifierPublisher publisher, SessionEndPublisher ends, Duration interval) {
        this.stores = stores;
        this.store = stores.clients();
        this.sessions = stores.sessions();
        this.registry = registry;
        this.ends = ends;
        this.publisher = publisher;
        this.interval = interval;
    }

    @Override
    public synchronized void start() {
        store.verify();
        publisher.start();
        thread = Executors.newSingleThreadScheduledExecutor(new DaemonThreadFactory("notifier-sweep"));
        thread.scheduleWithFixedDelay(this::sweep, 0, interval.toMillis(), TimeUnit.MILLISECONDS);
    }

    void sweep() {
        ends.runGuarded(ends::retry);
        ends.runGuarded(store::renewNode);
        ends.runGuarded(this::publishEndedNodes);
        ends.runGuarded(this::publishExpired);
        if (sessions != null) {
            ends.runGuarded(this::publishMissing);
        }
    }

    private void publishEndedNodes() {
        long timeoutMillis = Math.max(MIN_NODE_TIMEOUT.toMillis(), INTERVALS_PER_NODE_TIMEOUT * interval.toMillis());
        for (List<String> page = findEnded(timeoutMillis); !page.isEmpty(); page = findEnded(timeoutMillis)) {
            page.forEach(key -> ends.publish(key, Lane.BULK, null));
        }
    }

    private List<String> findEnded(long timeoutMillis) {
        return store.findSessionsOfEndedNodes(System.currentTimeMillis() - timeoutMillis);
    }

    /** `SessionInformation.expireNow()` and `maximumSessions` only mark a session, which ends at the browser's next request. */
    private void publishExpired() {
        if (registry == null) {
            return;
        }
        Set<String> expired = new HashSet<>();
        try {
            for (Object user : registry.getAllPrincipals()) {
                registry.getAllSessions(user, true).stream().filter(SessionInformation::isExpired).map(SessionInformation::getSessionId).forEach(expired::add);
            }
        } catch (UnsupportedOperationException shared) {
            return; // the store of Spring Session has the mark
        }
        reportedExpired.retainAll(expired);
        expired.removeAll(reportedExpired);
        for (String sessionId : expired) {
            ends.publish(stores.toKey(sessionId), Lane.EVENTS, "terminated");
            reportedExpired.add(sessionId);
        }
    }

    private void publishMissing() {
        List<String> missing = new ArrayList<>();
        List<String> page = store.findSessionsAfter("");
        while (!page.isEmpty()) {
            missing.addAll(sessions.findEnded(page));
            page = store.findSessionsAfter(page.get(page.size() - 1));
        }
        if (missing.isEmpty()) {
            return;
        }
        LockSupport.parkNanos(CONFIRMATION_DELAY.toNanos());
        if (!Thread.currentThread().isInterrupted()) {
            missing.stream().filter(sessions::isEnded).forEach(key -> ends.publish(key, Lane.BULK, null));
        }
    }

    /** The sessions in memory end with this process. Those that remain in the table are published by the next sweep of any process. */
    @Override
    public synchronized void stop() {
        thread.shutdownNow();
        try {
            thread.awaitTermination(STOP_LIMIT_SECONDS, TimeUnit.SECONDS);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
        thread = null;
        stores.calls().tryRun(store::removeNode);
        publisher.stop();
    }

    @Override
    public boolean isRunning() {
        return thread != null;
    }

    @Override
    public int getPhase() {
        return 0; // the web server's is higher
    }

    /** Spring 7 asks this before it pauses the context of a test: each start would claim another folder of the outbox. */
    public boolean isPauseable() {
        return false;
    }
}
