package dev.notifier.spring;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.UUID;
import java.util.function.UnaryOperator;

/** Stores the rows in memory, for an application without a database. They end with the process. */
final class InMemorySessionClientStore implements SessionClientStore {
    private static final int PAGE_SIZE = 1_000;

    private final String id = "memory-" + UUID.randomUUID();
    private final TreeMap<String, Map<String, SessionClient>> rowsBySession = new TreeMap<>();
    private final TreeMap<String, String> sessionsByRow = new TreeMap<>();

    private static String rowKey(SessionClient row) {
        return row.sid() + '\n' + row.iss() + '\n' + row.clientId();
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
        if (!sessionsByRow.containsKey(rowKey(client))) {
            put(client);
        }
    }

    @Override
    public synchronized List<SessionClient> find(String sid, String clientId) {
        return sessionsByRow.subMap(sid + '\n', sid + '\u000b').entrySet().stream().map(each -> rowsBySession.get(each.getValue()).get(each.getKey()))
                .filter(row -> row.clientId().equals(clientId)).toList();
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
        return new ArrayList<>(rowsBySession.getOrDefault(sessionKey, Map.of()).values());
    }

    @Override
    public synchronized void delete(Collection<SessionClient> clients) {
        clients.forEach(this::remove);
    }

    @Override
    public synchronized List<String> findSessionsAfter(String sessionKey) {
        return rowsBySession.tailMap(sessionKey, false).keySet().stream().limit(PAGE_SIZE).toList();
    }

    private boolean replace(SessionClient client, UnaryOperator<SessionClient> change) {
        SessionClient existing = remove(client);
        if (existing != null) {
            SessionClient changed = change.apply(existing);
            remove(changed);
            put(changed);
        }
        return existing != null;
    }

    private void put(SessionClient row) {
        rowsBySession.computeIfAbsent(row.sessionKey(), session -> new TreeMap<>()).put(rowKey(row), row);
        sessionsByRow.put(rowKey(row), row.sessionKey());
    }

    private SessionClient remove(SessionClient row) {
        String session = sessionsByRow.remove(rowKey(row));
        if (session == null) {
            return null;
        }
        SessionClient removed = rowsBySession.get(session).remove(rowKey(row));
        rowsBySession.computeIfPresent(session, (key, rows) -> rows.isEmpty() ? null : rows);
        return removed;
    }
}
