package dev.notifier.spring;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.SessionEnded;
import dev.notifier.publisher.monitoring.LogThrottle;
import jakarta.servlet.http.HttpSession;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.context.ApplicationListener;
import org.springframework.security.core.session.AbstractSessionEvent;
import org.springframework.security.core.session.SessionDestroyedEvent;
import org.springframework.security.core.session.SessionIdChangedEvent;
import org.springframework.security.web.session.HttpSessionDestroyedEvent;

/**
 * Publishes the end of a session to its clients, and deletes its rows afterwards.
 *
 * An end that cannot be published now, because the database does not answer, is tried again every second. One that fails by itself is tried
 * again after 2, 4, 8 … 512 s. After a kill, the rows remain, and are published by the sweep of another process or of the next one.
 */
final class SessionEndPublisher implements ApplicationListener<AbstractSessionEvent> {
    private static final Logger LOG = LoggerFactory.getLogger(SessionEndPublisher.class);

    /** The attribute of sessions in memory that have clients. The others, such as those of robots, end without a call of the store. */
    static final String HAS_CLIENTS = "notifier.has_clients";

    private static final int MAX_PENDING_TASKS = 1_000_000; // of some 200 bytes, less than the sessions had
    private static final int MAX_FAILURE_COUNT = 9;
    private static final int MAX_EVENTS_PER_SESSION = 100;
    private static final int MAX_ROWS_PER_SESSION = 900; // a page of rows is 1,000

    private final SessionStores stores;
    private final SessionClientStore store;
    private final NotifierPublisher publisher;
    private final ClientEntryFactory entries;
    private final SessionHistory history = new SessionHistory();
    private final Map<String, Boolean> inProgress = new ConcurrentHashMap<>(); // whether a session is to be published again
    private final Queue<PendingTask> pending = new LinkedBlockingQueue<>(MAX_PENDING_TASKS);
    private int round;
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));

    /** @param failureCount how often it has failed by itself, up to 9 */
    private record PendingTask(Runnable task, int failureCount) {
    }

    SessionEndPublisher(SessionStores stores, NotifierPublisher publisher, ClientEntryFactory entries) {
        this.stores = stores;
        this.store = stores.clients();
        this.publisher = publisher;
        this.entries = entries;
    }

    /** The container reports a session. Events of a shared store, such as Redis, reach each process: the filter and the sweep publish once. */
    @Override
    public void onApplicationEvent(AbstractSessionEvent event) {
        if (stores.sessions() != null) {
            return;
        }
        if (event instanceof HttpSessionDestroyedEvent http) {
            onDestroyed(http.getSession());
        } else if (event instanceof SessionDestroyedEvent destroyed) {
            onSignOut(destroyed.getId());
        } else if (event instanceof SessionIdChangedEvent changed) {
            onIdChanged(changed.getOldSessionId(), changed.getNewSessionId());
        }
    }

    /** The container expires all sessions that are due at once: they wait for a thread that delays no sign-out. */
    private void onDestroyed(HttpSession session) {
        boolean isExpired = false;
        try {
            if (session.getAttribute(HAS_CLIENTS) == null) {
                return;
            }
            long limitMillis = TimeUnit.SECONDS.toMillis(session.getMaxInactiveInterval());
            isExpired = limitMillis > 0 && System.currentTimeMillis() - session.getLastAccessedTime() >= limitMillis;
        } catch (IllegalStateException invalidated) {
            // by a request
        }
        if (isExpired) {
            String key = stores.toKey(session.getId());
            runLater(() -> publishEnded(key, Lane.BULK, "session_expiration"), 0);
        } else {
            onSignOut(session.getId());
        }
    }

    /** A request has ended the session. Returns when the events are in the outbox, or after 2 s if the database does not answer. */
    void onSignOut(String sessionId) {
        stores.calls().await(start(() -> {
            if (stores.sessions() == null || stores.sessions().isEnded(sessionId)) {
                publishEnded(stores.toKey(sessionId), Lane.EVENTS, null);
            }
        }));
    }

    private void publishEnded(String key, Lane lane, String reason) {
        history.onEnded(key);
        publish(key, lane, reason);
    }

    /** The session continues with another id, under which it may not be stored yet. */
    void onIdChanging(String oldId, String newId) {
        history.onMoved(stores.toKey(oldId), stores.toKey(newId));
    }

    /** The session continues with another id. */
    void onIdChanged(String oldId, String newId) {
        String oldKey = stores.toKey(oldId);
        String newKey = stores.toKey(newId);
        history.onMoved(oldKey, newKey);
        stores.calls().await(start(() -> move(oldKey, history.follow(newKey))));
    }

    /** Moves rows to a key of their session, and publishes them if it has ended meanwhile. */
    private void move(String fromKey, String toKey) {
        if (!fromKey.equals(toKey)) {
            store.move(fromKey, toKey);
        }
        if (history.hasEnded(toKey)) {
            publish(toKey, Lane.EVENTS, null);
        }
    }

    /**
     * Adds a row, also if its session gets another id or ends meanwhile. Publishes the oldest of more than 100 events of the session early:
     * each sign-in makes one, and each issuer, so that one browser could make any number.
     */
    void add(SessionClient client) {
        store.add(client);
        String key = history.follow(client.sessionKey());
        move(client.sessionKey(), key);
        List<SessionClient> rows = store.findBySession(key);
        Collection<List<SessionClient>> events = groupByEvent(rows);
        if (events.size() > MAX_EVENTS_PER_SESSION || events.size() > 1 && rows.size() > MAX_ROWS_PER_SESSION) {
            publishAndDelete(Collections.min(events, Comparator.comparingLong(each -> each.get(0).createdAt())), Lane.BULK, null);
        }
    }

    /** Returns whether a session has ended, by each id that it has had at this process. */
    boolean isEnded(String key) {
        String current = history.follow(key);
        return history.hasEnded(current) || stores.sessions() != null && stores.sessions().isEnded(key)
                && (current.equals(key) || stores.sessions().isEnded(current));
    }

    private CompletableFuture<Boolean> start(Runnable task) {
        return stores.calls().start(() -> {
            task.run();
            return true;
        }).whenComplete((done, failure) -> {
            if (failure != null) {
                runLater(task, 0);
            }
        });
    }

    private void runLater(Runnable task, int failureCount) {
        if (!pending.offer(new PendingTask(task, Math.min(failureCount, MAX_FAILURE_COUNT))) && throttle.tryAcquire("full")) {
            LOG.error("notifier: too many ended sessions wait for the database; further ones are published after a restart, without a database never");
        }
    }

    /**
     * Publishes expired sessions, and runs tasks again that have failed, in order until the stores are unreachable. A task that fails by itself
     * follows after the others, and is run by one of two calls, then of four, up to 512. Called every second.
     */
    void runPending() {
        round++;
        for (int remaining = pending.size(); remaining > 0; remaining--) {
            PendingTask next = pending.peek();
            boolean isDue = round % (1 << next.failureCount()) == 0;
            boolean isDone = isDue && runGuarded(next.task());
            if (isDue && !isDone && !isReachable()) {
                return;
            }
            pending.remove();
            if (!isDone) {
                runLater(next.task(), next.failureCount() + (isDue ? 1 : 0));
            }
        }
    }

    /** Returns whether the stores answer. */
    boolean isReachable() {
        return runGuarded(() -> {
            store.findBySession(SessionClientStore.FIRST_KEY);
            if (stores.sessions() != null) {
                stores.sessions().isEnded(SessionClientStore.FIRST_KEY);
            }
        });
    }

    /** Publishes a session if the shared store does not have it, unless it has got another id. */
    void publishIfMissing(String key) {
        String current = history.follow(key);
        if (!current.equals(key)) {
            move(key, current);
        } else if (stores.sessions().isEnded(key)) {
            publish(key, Lane.BULK, null);
        }
    }

    /**
     * Publishes the end of a session to all its clients. If another thread publishes it now, that one looks for rows again.
     *
     * @param reason null if unknown
     */
    void publish(String sessionKey, Lane lane, String reason) {
        if (inProgress.merge(sessionKey, false, (running, isNew) -> true)) {
            return;
        }
        try {
            do {
                inProgress.put(sessionKey, false);
                for (List<SessionClient> rows = store.findBySession(sessionKey); !rows.isEmpty(); rows = store.findBySession(sessionKey)) {
                    publishAndDelete(rows, lane, reason);
                    LOG.debug("notifier: a session with {} clients has ended", rows.size());
                }
            } while (!inProgress.remove(sessionKey, false));
        } catch (RuntimeException | Error failure) {
            inProgress.remove(sessionKey);
            throw failure;
        }
    }

    private void publishAndDelete(List<SessionClient> rows, Lane lane, String reason) {
        publisher.publish(groupByEvent(rows).stream().map(each -> toSessionEnded(each, reason)).toList(), lane);
        store.delete(rows);
    }

    private static Collection<List<SessionClient>> groupByEvent(List<SessionClient> rows) {
        return rows.stream().collect(Collectors.groupingBy(row -> List.of(row.sid(), row.iss()), LinkedHashMap::new, Collectors.toList())).values();
    }

    /** Two processes that find the same end give it the same id. */
    private SessionEnded toSessionEnded(List<SessionClient> rows, String reason) {
        SessionClient first = rows.get(0);
        List<String> idSource = new ArrayList<>(List.of(first.sid(), first.iss()));
        rows.forEach(row -> idSource.add(row.clientId() + ' ' + row.createdAt()));
        return new SessionEnded(null, String.join("\n", idSource), first.iss(), first.sub(), first.sid(), rows.stream().map(entries::create).toList(),
                Instant.now().truncatedTo(ChronoUnit.MILLIS), reason);
    }

    /** Runs a task. Logs its failure instead of throwing it. Returns whether it has succeeded. */
    boolean runGuarded(Runnable task) {
        try {
            task.run();
            return true;
        } catch (RuntimeException | LinkageError | StackOverflowError failure) {
            String name = BoundedCalls.name(failure);
            if (throttle.tryAcquire(name)) {
                LOG.error("notifier: ended sessions cannot be published now, and are tried again later: {}", name);
            }
            return false;
        }
    }
}
