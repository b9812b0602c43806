package dev.notifier.spring;

import java.util.Collection;
import java.util.List;
import java.util.TreeMap;
import java.util.UUID;
import java.util.function.UnaryOperator;

/** Stores the rows in memory, for an application without a database. They end with the process. */
final class InMemorySessionClientStore implements SessionClientStore {
    private static final int PAGE_SIZE = 1_000;

    private final String id = "memory-" + UUID.randomUUID();
    /** By the texts `sid`, issuer and client, of which none has a line break. */
    private final TreeMap<String, SessionClient> rows = new TreeMap<>();
    /** By the session's key and these texts. */
    private final TreeMap<String, SessionClient> rowsBySession = new TreeMap<>();

    private static String rowKey(SessionClient row) {
        return row.sid() + '\n' + row.iss() + '\n' + row.clientId();
    }

    private static Collection<SessionClient> startingWith(String key, TreeMap<String, SessionClient> rows) {
        return rows.subMap(key + '\n', key + '\u000b').values();
    }

    @Override
    public String id() {
        return id;
    }

    @Override
    public String node() {
        return id;
    }

    @Override
    public synchronized void add(SessionClient client) {
        if (rows.putIfAbsent(rowKey(client), client) == null) {
            rowsBySession.put(client.sessionKey() + '\n' + rowKey(client), client);
        }
    }

    @Override
    public synchronized List<SessionClient> find(String sid, String clientId) {
        return startingWith(sid, rows).stream().filter(row -> row.clientId().equals(clientId)).toList();
    }

    @Override
    public synchronized boolean update(SessionClient client, String iss, String sub) {
        return replace(client, existing -> existing.withToken(iss, sub));
    }

    @Override
    public synchronized void move(String fromKey, String toKey) {
        findBySession(fromKey).forEach(row -> replace(row, existing -> existing.withSession(toKey)));
    }

    @Override
    public synchronized List<SessionClient> findBySession(String sessionKey) {
        return List.copyOf(startingWith(sessionKey, rowsBySession));
    }

    @Override
    public synchronized void delete(Collection<SessionClient> clients) {
        clients.forEach(this::remove);
    }

    @Override
    public synchronized List<String> findSessionsAfter(String sessionKey) {
        return rowsBySession.tailMap(sessionKey + '\u000b').values().stream().map(SessionClient::sessionKey).distinct().limit(PAGE_SIZE).toList();
    }

    private boolean replace(SessionClient client, UnaryOperator<SessionClient> change) {
        SessionClient existing = remove(client);
        if (existing != null) {
            SessionClient changed = change.apply(existing);
            remove(changed);
            add(changed);
        }
        return existing != null;
    }

    private SessionClient remove(SessionClient row) {
        SessionClient removed = rows.remove(rowKey(row));
        if (removed != null) {
            rowsBySession.remove(removed.sessionKey() + '\n' + rowKey(removed));
        }
        return removed;
    }
}
