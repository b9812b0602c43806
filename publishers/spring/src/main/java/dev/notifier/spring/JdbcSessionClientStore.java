package dev.notifier.spring;

import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import javax.sql.DataSource;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.core.NestedRuntimeException;
import org.springframework.dao.DuplicateKeyException;
import org.springframework.jdbc.BadSqlGrammarException;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.jdbc.datasource.DataSourceTransactionManager;
import org.springframework.transaction.support.TransactionTemplate;

/** Stores the rows in the application's database, each call in its own transaction. */
final class JdbcSessionClientStore implements SessionClientStore {
    private static final Logger LOG = LoggerFactory.getLogger(JdbcSessionClientStore.class);
    private static final String SCHEMA = "classpath:dev/notifier/spring/R__notifier_session_client.sql";
    private static final String COLUMNS = "session_key, sid, client_id, iss, sub, created_at, node";
    private static final String SELECT = "SELECT " + COLUMNS + " FROM notifier_session_client ";
    private static final String KEY = " WHERE sid = ? AND client_id = ? AND iss = ?";
    private static final int PAGE_SIZE = 1_000;
    private static final int QUERY_TIMEOUT_SECONDS = 10;

    private final JdbcTemplate jdbc;
    private final TransactionTemplate transaction;
    private final String node;
    private final boolean hasNode;
    private final String sessionTable;
    private volatile boolean isNodeKnown;
    private volatile boolean isSessionTableUsable;

    /**
     * @param node see {@link SessionClient#node}
     * @param sessionTable Spring Session's table in the same database; null without one
     */
    JdbcSessionClientStore(DataSource dataSource, String node, String sessionTable) {
        this.jdbc = new JdbcTemplate(dataSource);
        this.jdbc.setQueryTimeout(QUERY_TIMEOUT_SECONDS);
        this.jdbc.setMaxRows(PAGE_SIZE);
        this.transaction = new TransactionTemplate(new DataSourceTransactionManager(dataSource));
        this.node = node;
        this.sessionTable = sessionTable;
        this.hasNode = !node.equals(SessionClient.SHARED);
        this.isNodeKnown = !hasNode;
        this.isSessionTableUsable = sessionTable != null;
    }

    @Override
    public String id() {
        return "table";
    }

    @Override
    public String node() {
        return node;
    }

    @Override
    public void add(SessionClient client) {
        if (!isNodeKnown) {
            renewNode();
        }
        if (update("UPDATE notifier_session_client SET node = ?" + KEY, client.node(), client.sid(), client.clientId(), client.iss()) == 0) {
            insertIfAbsent("INSERT INTO notifier_session_client (" + COLUMNS + ") VALUES (?, ?, ?, ?, ?, ?, ?)", client.sessionKey(), client.sid(),
                    client.clientId(), client.iss(), client.sub(), client.createdAt(), client.node());
        }
    }

    @Override
    public List<SessionClient> find(String sid, String clientId) {
        return query(SELECT + "WHERE sid = ? AND client_id = ?", sid, clientId);
    }

    @Override
    public boolean update(SessionClient client, String iss, String sub) {
        try {
            return update("UPDATE notifier_session_client SET iss = ?, sub = ?" + KEY, iss, sub, client.sid(), client.clientId(), client.iss()) > 0;
        } catch (DuplicateKeyException both) { // an earlier code has a row of the token's issuer
            delete(List.of(client));
            return update(client.withToken(iss, sub), iss, sub);
        }
    }

    @Override
    public void move(String fromKey, String toKey) {
        update("UPDATE notifier_session_client SET session_key = ? WHERE session_key = ?", toKey, fromKey);
    }

    @Override
    public List<SessionClient> findBySession(String sessionKey) {
        return query(SELECT + "WHERE session_key = ? ORDER BY sid, iss, client_id", sessionKey);
    }

    @Override
    public void delete(Collection<SessionClient> clients) {
        List<Object[]> keys = clients.stream().map(each -> new Object[] {each.sid(), each.clientId(), each.iss()}).toList();
        transaction.executeWithoutResult(status -> jdbc.batchUpdate("DELETE FROM notifier_session_client" + KEY, keys));
    }

    /** Where Spring Session's table is in the same database, one query leaves out the living sessions. */
    @Override
    public List<String> findSessionsAfter(String sessionKey) {
        String all = "SELECT DISTINCT c.session_key FROM notifier_session_client c WHERE c.session_key > ?";
        String order = " ORDER BY c.session_key";
        if (isSessionTableUsable) {
            try {
                return queryNames(all + " AND NOT EXISTS (SELECT 1 FROM " + sessionTable + " s WHERE s.SESSION_ID = c.session_key AND s.EXPIRY_TIME >= ?"
                        + " AND NOT EXISTS (SELECT 1 FROM " + sessionTable + "_ATTRIBUTES a WHERE a.SESSION_PRIMARY_ID = s.PRIMARY_ID AND a.ATTRIBUTE_NAME = ?))"
                        + order, sessionKey, System.currentTimeMillis(), SharedSessions.EXPIRED_ATTRIBUTE);
            } catch (BadSqlGrammarException otherDatabase) {
                isSessionTableUsable = false;
                LOG.info("notifier: the table {} is not in the database of notifier_session_client, so the sweep reads each session", sessionTable);
            }
        }
        return queryNames(all + order, sessionKey);
    }

    @Override
    public void renewNode() {
        if (!hasNode) {
            return;
        }
        long now = System.currentTimeMillis();
        if (update("UPDATE notifier_node SET seen_at = ? WHERE node = ?", now, node) == 0) {
            insertIfAbsent("INSERT INTO notifier_node (node, seen_at) VALUES (?, ?)", node, now);
        }
        isNodeKnown = true;
    }

    @Override
    public Map<String, Long> findNodes() {
        Map<String, Long> nodes = new HashMap<>();
        transaction.executeWithoutResult(status -> jdbc.query("SELECT node, seen_at FROM notifier_node", row -> {
            nodes.put(row.getString(1), row.getLong(2));
        }));
        return nodes;
    }

    @Override
    public List<String> findSessionsOfEndedNodes(String sessionKey) {
        return queryNames("SELECT DISTINCT c.session_key FROM notifier_session_client c WHERE c.session_key > ? AND c.node <> ? AND NOT EXISTS"
                + " (SELECT 1 FROM notifier_node n WHERE n.node = c.node) ORDER BY c.session_key", sessionKey, SessionClient.SHARED);
    }

    @Override
    public void removeNode(String ended) {
        update("DELETE FROM notifier_node WHERE node = ?", ended);
    }

    @Override
    public void verify() {
        try {
            query(SELECT + "WHERE session_key = ?", "");
            findSessionsOfEndedNodes(FIRST_KEY);
        } catch (BadSqlGrammarException missing) {
            throw new NotifierConfigurationException("The tables notifier_session_client and notifier_node are not in the database, or have other columns: "
                    + missing.getMostSpecificCause().getMessage(),
                    "Run " + SCHEMA + " by Flyway, Liquibase or hand before the application starts.");
        } catch (NestedRuntimeException unreachable) {
            LOG.warn("notifier: the tables of sessions and clients cannot be checked: {}", unreachable.getClass().getName());
        }
    }

    private int update(String sql, Object... values) {
        Integer count = transaction.execute(status -> jdbc.update(sql, values));
        return count == null ? 0 : count;
    }

    private void insertIfAbsent(String sql, Object... values) {
        try {
            update(sql, values);
        } catch (DuplicateKeyException addedMeanwhile) {
            LOG.debug("notifier: another thread has added the same row");
        }
    }

    private List<SessionClient> query(String sql, Object... values) {
        return transaction.execute(status -> jdbc.query(sql, (row, number) -> new SessionClient(row.getString(1), row.getString(2), row.getString(3),
                row.getString(4), row.getString(5), row.getLong(6), row.getString(7)), values));
    }

    private List<String> queryNames(String sql, Object... values) {
        return transaction.execute(status -> jdbc.queryForList(sql, String.class, values));
    }
}
