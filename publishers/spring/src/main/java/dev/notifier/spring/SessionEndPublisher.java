package dev.notifier.spring;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.SessionEnded;
import dev.notifier.publisher.monitoring.LogThrottle;
import jakarta.servlet.http.HttpSession;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.context.ApplicationListener;
import org.springframework.core.NestedRuntimeException;
import org.springframework.security.core.session.AbstractSessionEvent;
import org.springframework.security.core.session.SessionDestroyedEvent;
import org.springframework.security.core.session.SessionIdChangedEvent;
import org.springframework.security.web.session.HttpSessionDestroyedEvent;

/**
 * Publishes the end of a session to its clients, and deletes its rows afterwards.
 *
 * An end that cannot be published now, because the database does not answer, is tried again by the sweep. After a kill, the rows remain,
 * and are published by the sweep of another process or of the next one.
 */
final class SessionEndPublisher implements ApplicationListener<AbstractSessionEvent> {
    private static final Logger LOG = LoggerFactory.getLogger(SessionEndPublisher.class);
    private static final int MAX_UNFINISHED_TASKS = 100_000;

    private final SessionStores stores;
    private final SessionClientStore store;
    private final NotifierPublisher publisher;
    private final ClientEntryFactory entries;
    private final BoundedCalls calls;
    private final Set<String> inProgress = ConcurrentHashMap.newKeySet();
    private final Queue<Runnable> unfinished = new LinkedBlockingQueue<>(MAX_UNFINISHED_TASKS);
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));

    SessionEndPublisher(SessionStores stores, NotifierPublisher publisher, ClientEntryFactory entries) {
        this.stores = stores;
        this.store = stores.clients();
        this.publisher = publisher;
        this.entries = entries;
        this.calls = stores.calls();
    }

    /** The container reports a session. Events of a shared store, such as Redis, reach each process: the filter and the sweep publish once. */
    @Override
    public void onApplicationEvent(AbstractSessionEvent event) {
        if (stores.sessions() != null) {
            return;
        }
        if (event instanceof HttpSessionDestroyedEvent http && isExpired(http.getSession())) {
            start(() -> publish(stores.toKey(http.getId()), Lane.BULK, "session_expiration"));
        } else if (event instanceof SessionDestroyedEvent destroyed) {
            onSignOut(destroyed.getId());
        } else if (event instanceof SessionIdChangedEvent changed) {
            onIdChanged(changed.getOldSessionId(), changed.getNewSessionId());
        }
    }

    private static boolean isExpired(HttpSession session) {
        try {
            long limitMillis = TimeUnit.SECONDS.toMillis(session.getMaxInactiveInterval());
            return limitMillis > 0 && System.currentTimeMillis() - session.getLastAccessedTime() >= limitMillis;
        } catch (IllegalStateException invalidated) {
            return false;
        }
    }

    /** A request has ended the session. Returns when the events are in the outbox, or after 2 s if the database does not answer. */
    void onSignOut(String sessionId) {
        calls.await(start(() -> {
            if (stores.sessions() == null || stores.sessions().isEnded(sessionId)) {
                publish(stores.toKey(sessionId), Lane.EVENTS, null);
            }
        }));
    }

    /** The session continues with another id. */
    void onIdChanged(String oldId, String newId) {
        calls.await(start(() -> store.move(stores.toKey(oldId), stores.toKey(newId))));
    }

    private CompletableFuture<Boolean> start(Runnable task) {
        if (!unfinished.isEmpty()) { // in order: a session may have got another id before its end
            repeatLater(task);
            return CompletableFuture.completedFuture(true);
        }
        return calls.start(() -> {
            task.run();
            return true;
        }).whenComplete((done, failure) -> {
            if (failure != null) {
                repeatLater(task);
            }
        });
    }

    private void repeatLater(Runnable task) {
        if (!unfinished.offer(task) && throttle.tryAcquire("full")) {
            LOG.error("notifier: more than {} ended sessions wait for the database; the others are published after a restart", MAX_UNFINISHED_TASKS);
        }
    }

    /** Runs the tasks again that have failed, in their order, until one fails again. Only an error of the task itself loses it its place. */
    void retry() {
        for (Runnable task = unfinished.peek(); task != null; task = unfinished.peek()) {
            try {
                task.run();
                unfinished.remove();
            } catch (NestedRuntimeException databaseFailure) {
                throw databaseFailure;
            } catch (RuntimeException failure) {
                unfinished.remove();
                repeatLater(task);
                throw failure;
            }
        }
    }

    /**
     * Publishes the end of a session to all its clients.
     *
     * @param reason null if unknown
     */
    void publish(String sessionKey, Lane lane, String reason) {
        if (!inProgress.add(sessionKey)) {
            return;
        }
        try {
            for (List<SessionClient> rows = store.findBySession(sessionKey); !rows.isEmpty(); rows = store.findBySession(sessionKey)) {
                Map<List<String>, List<SessionClient>> rowsByEvent = rows.stream()
                        .collect(Collectors.groupingBy(row -> List.of(row.sid(), row.iss()), LinkedHashMap::new, Collectors.toList()));
                rowsByEvent.values().forEach(each -> publisher.publish(toSessionEnded(each, reason), lane));
                store.delete(rows);
                LOG.debug("notifier: a session with {} clients has ended", rows.size());
            }
        } finally {
            inProgress.remove(sessionKey);
        }
    }

    /** Two processes that find the same end give it the same id. */
    private SessionEnded toSessionEnded(List<SessionClient> rows, String reason) {
        SessionClient first = rows.get(0);
        List<String> idSource = new ArrayList<>(List.of(first.sid(), first.iss()));
        rows.forEach(row -> idSource.add(row.clientId() + ' ' + row.createdAt()));
        return new SessionEnded(null, String.join("\n", idSource), first.iss(), first.sub(), first.sid(), rows.stream().map(entries::create).toList(),
                Instant.now().truncatedTo(ChronoUnit.MILLIS), reason);
    }

    /** Runs a part of the sweep. Logs its failure instead of throwing it. */
    void runGuarded(Runnable part) {
        try {
            part.run();
        } catch (RuntimeException failure) {
            String name = BoundedCalls.name(failure);
            if (throttle.tryAcquire(name)) {
                LOG.error("notifier: ended sessions cannot be published now, and are tried again by the next sweep: {}", name);
            }
        }
    }
}
