package dev.notifier.spring;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.Predicate;
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
    private static final Duration PENDING_INTERVAL = Duration.ofSeconds(1);
    private static final long STOP_LIMIT_SECONDS = 2;

    private final SessionStores stores;
    private final SessionClientStore store;
    private final SessionRegistry registry;
    private final NotifierPublisher publisher;
    private final SessionEndPublisher ends;
    private final Duration interval;
    private final Set<String> reportedExpired = new HashSet<>();
    private volatile ScheduledExecutorService threads;

    /** @param registry the sessions that administrators can expire; null without one */
    SessionSweep(SessionStores stores, SessionRegistry registry, NotifierPublisher publisher, SessionEndPublisher ends, Duration interval) {
        this.stores = stores;
        this.store = stores.clients();
        this.registry = registry;
        this.ends = ends;
        this.publisher = publisher;
        this.interval = interval;
    }

    @Override
    public synchronized void start() {
        store.verify();
        publisher.start();
        threads = Executors.newScheduledThreadPool(3, new DaemonThreadFactory("notifier-sweep")); // no task delays another
        schedule(new NodeObserver(store, System::nanoTime)::observe, NodeObserver.INTERVAL);
        schedule(ends::runPending, PENDING_INTERVAL);
        schedule(this::sweep, interval);
    }

    private void schedule(Runnable task, Duration pause) {
        threads.scheduleWithFixedDelay(() -> ends.runGuarded(task), 0, pause.toMillis(), TimeUnit.MILLISECONDS);
    }

    void sweep() {
        ends.runGuarded(() -> forEachPage(store::findSessionsOfEndedNodes, page -> forEach(page, key -> ends.publish(key, Lane.BULK, null))));
        ends.runGuarded(this::publishExpired);
        if (stores.sessions() != null) {
            ends.runGuarded(this::publishMissing);
        }
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
        forEach(expired, sessionId -> {
            ends.publish(stores.toKey(sessionId), Lane.EVENTS, "terminated");
            reportedExpired.add(sessionId);
        });
    }

    private void publishMissing() {
        List<String> missing = new ArrayList<>();
        forEachPage(store::findSessionsAfter, page -> ends.runGuarded(() -> missing.addAll(stores.sessions().findEnded(page)))
                || forEach(page, key -> missing.addAll(stores.sessions().findEnded(List.of(key)))));
        if (!missing.isEmpty()) {
            LockSupport.parkNanos(CONFIRMATION_DELAY.toNanos());
            forEach(missing, ends::publishIfMissing);
        }
    }

    private void forEachPage(Function<String, List<String>> findPage, Predicate<List<String>> action) {
        List<String> page = findPage.apply(SessionClientStore.FIRST_KEY);
        while (!page.isEmpty() && action.test(page)) {
            page = findPage.apply(page.get(page.size() - 1));
        }
    }

    /** Returns false if the stores are unreachable. A session that fails by itself does not stop the others. */
    private boolean forEach(Collection<String> keys, Consumer<String> action) {
        return keys.stream().allMatch(key -> ends.runGuarded(() -> action.accept(key)) || ends.isReachable());
    }

    /** The sessions in memory end with this process. Those that remain in the table are published by the next sweep of any process. */
    @Override
    public synchronized void stop() {
        threads.shutdown(); // an interrupt in a query would close an embedded H2 file for the whole process
        try {
            threads.awaitTermination(STOP_LIMIT_SECONDS, TimeUnit.SECONDS);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
        threads = null;
        stores.calls().tryRun(() -> store.removeNode(store.node()));
        publisher.stop();
    }

    @Override
    public boolean isRunning() {
        return threads != null;
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
