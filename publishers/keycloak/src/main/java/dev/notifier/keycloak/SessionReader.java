package dev.notifier.keycloak;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import dev.notifier.publisher.event.SessionKey;
import jakarta.persistence.EntityManager;
import jakarta.persistence.FlushModeType;
import jakarta.persistence.TypedQuery;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Consumer;
import org.keycloak.connections.jpa.JpaConnectionProvider;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.KeycloakSessionFactory;
import org.keycloak.models.jpa.session.PersistentClientSessionEntity;
import org.keycloak.models.jpa.session.PersistentUserSessionEntity;
import org.keycloak.models.utils.KeycloakModelUtils;
import org.keycloak.storage.StorageId;
import org.keycloak.util.JsonSerialization;

/**
 * Reads Keycloak's tables of sessions and their clients, also expired ones. Queries select columns rather than entities, because
 * only the columns are the same in all supported versions.
 */
final class SessionReader {
    private static final String ALL_CLIENTS = "select c.userSessionId, c.clientId, c.clientStorageProvider, c.externalClientId, c.timestamp, c.data from PersistentClientSessionEntity c";
    private static final String CLIENTS = ALL_CLIENTS + " where c.offline = :offline and c.userSessionId ";
    private static final String CLIENTS_OF_SESSIONS = ALL_CLIENTS + ", PersistentUserSessionEntity s where s.offline = :offline and c.offline = s.offline"
            + " and c.userSessionId = s.userSessionId and ";
    private static final String SESSIONS = "select s.userSessionId, s.realmId, s.userId, s.createdOn from PersistentUserSessionEntity s where s.offline = :offline and ";

    /** Some databases refuse longer lists. */
    private static final int MAX_IDS = 1_000;

    private static final JsonFactory JSON = JsonSerialization.mapper.getFactory();
    private static final boolean HAS_REMEMBER_ME_COLUMN = Arrays.stream(PersistentUserSessionEntity.class.getDeclaredFields()).anyMatch(each -> each.getName().equals("rememberMe"));

    private SessionReader() {
    }

    /**
     * A session.
     *
     * @param createdOn in seconds
     */
    record SessionRow(String id, String realm, String user, int createdOn, boolean offline, List<ClientRow> clients) {
    }

    /**
     * A client of a session.
     *
     * @param client Keycloak's internal id, or the storage id of an external client
     * @param timestamp the client's last sign-in or refresh, in seconds since 1970
     * @param issuer the issuer of the client's ID token; null if it is not stored
     */
    record ClientRow(String client, int timestamp, String issuer) {
    }

    /** Returns whether this Keycloak has a column for remember me, and a separate expiry rule for such sessions. */
    static boolean hasRememberMeColumn() {
        return HAS_REMEMBER_ME_COLUMN;
    }

    /** Returns the session, or null. */
    static SessionRow find(KeycloakSession session, String id, boolean offline) {
        EntityManager entities = entities(session);
        List<Object[]> found = query(entities, SESSIONS + "s.userSessionId = :id")
                .setParameter("offline", flag(offline)).setParameter("id", id).getResultList();
        Map<String, SessionRow> rows = rows(found, offline);
        addClients(rows, query(entities, CLIENTS + "= :id").setParameter("offline", flag(offline)).setParameter("id", id));
        return rows.get(id);
    }

    /** Passes the selected sessions of one kind to the consumer in pages, in the order of their ids. */
    static void forEachPage(KeycloakSession session, SessionCriteria criteria, int kind, int pageSize, Consumer<List<SessionRow>> consumer) {
        String lastId = "";
        List<SessionRow> page;
        do {
            page = readPage(session, criteria, kind, lastId, pageSize);
            consumer.accept(page);
            lastId = page.isEmpty() ? lastId : page.get(page.size() - 1).id();
        } while (page.size() == pageSize);
    }

    /** Both queries have the same text for each page: Hibernate takes longer to parse a list of 500 ids than the database to run the query. */
    private static List<SessionRow> readPage(KeycloakSession session, SessionCriteria criteria, int kind, String afterId, int pageSize) {
        EntityManager entities = entities(session);
        String condition = "s.realmId = :realm and s.userSessionId > :after and " + criteria.conditions().get(kind);
        List<Object[]> sessions = query(entities, SESSIONS + condition + " order by s.userSessionId", criteria, kind, afterId).setMaxResults(pageSize)
                .getResultList();
        if (sessions.isEmpty()) {
            return List.of();
        }
        Map<String, SessionRow> rows = rows(sessions, criteria.kinds().get(kind));
        String lastId = (String) sessions.get(sessions.size() - 1)[0];
        addClients(rows, query(entities, CLIENTS_OF_SESSIONS + condition + " and s.userSessionId <= :last", criteria, kind, afterId)
                .setParameter("last", lastId));
        return List.copyOf(rows.values());
    }

    private static TypedQuery<Object[]> query(EntityManager entities, String text, SessionCriteria criteria, int kind, String afterId) {
        TypedQuery<Object[]> query = query(entities, text).setParameter("realm", criteria.realm().getId()).setParameter("after", afterId)
                .setParameter("offline", flag(criteria.kinds().get(kind)));
        criteria.parameters().forEach((name, value) -> {
            if (text.matches("(?s).*:" + name + "\\b.*")) {
                query.setParameter(name, value);
            }
        });
        return query;
    }

    private static Map<String, SessionRow> rows(List<Object[]> sessions, boolean offline) {
        Map<String, SessionRow> rows = new LinkedHashMap<>();
        for (Object[] each : sessions) {
            rows.put((String) each[0], new SessionRow((String) each[0], (String) each[1], (String) each[2], ((Number) each[3]).intValue(), offline, new ArrayList<>()));
        }
        return rows;
    }

    /** Ignores clients of other sessions, such as one that started between the two queries. */
    private static void addClients(Map<String, SessionRow> rows, TypedQuery<Object[]> clients) {
        for (Object[] each : clients.getResultList()) {
            SessionRow row = rows.get((String) each[0]);
            if (row != null) {
                row.clients().add(new ClientRow(clientId(each), ((Number) each[4]).intValue(), issuer((String) each[5])));
            }
        }
    }

    private static String clientId(Object[] row) {
        return PersistentClientSessionEntity.EXTERNAL.equals(row[1]) ? new StorageId((String) row[2], (String) row[3]).getId() : (String) row[1];
    }

    /** Returns the note `iss`. The JSON is streamed, because the rest of it is long. */
    private static String issuer(String data) {
        if (data == null) {
            return null;
        }
        try (JsonParser json = JSON.createParser(data)) {
            boolean found = json.nextToken() == JsonToken.START_OBJECT && moveTo(json, "notes") && json.currentToken() == JsonToken.START_OBJECT && moveTo(json, "iss");
            return found && json.currentToken() == JsonToken.VALUE_STRING ? json.getText() : null;
        } catch (IOException unreadable) {
            return null;
        }
    }

    /** Moves to the value of a member of the current object. Returns false if the object does not have it. */
    private static boolean moveTo(JsonParser json, String member) throws IOException {
        while (json.nextToken() == JsonToken.FIELD_NAME) {
            boolean found = json.currentName().equals(member);
            json.nextToken();
            if (found) {
                return true;
            }
            json.skipChildren();
        }
        return false;
    }

    /**
     * Returns those of the keys whose rows exist. Reads in a separate transaction, since an older one would still find deleted rows
     * (repeatable read).
     */
    static Set<SessionKey> findLiving(KeycloakSessionFactory factory, Collection<SessionKey> keys) {
        Map<SessionRowKey, SessionKey> keyByRow = new LinkedHashMap<>();
        for (SessionKey key : keys) {
            SessionRowKey row = SessionRowKey.parse(key);
            if (row != null) {
                keyByRow.put(row, key);
            }
        }
        Set<SessionKey> living = new HashSet<>();
        KeycloakModelUtils.runJobInTransaction(factory, session -> {
            for (boolean offline : new boolean[] {false, true}) {
                List<SessionRowKey> rows = keyByRow.keySet().stream().filter(each -> each.offline() == offline).toList();
                for (int from = 0; from < rows.size(); from += MAX_IDS) {
                    findExisting(entities(session), rows.subList(from, Math.min(from + MAX_IDS, rows.size())), offline)
                            .forEach(row -> living.add(keyByRow.get(row)));
                }
            }
        });
        return living;
    }

    private static List<SessionRowKey> findExisting(EntityManager entities, List<SessionRowKey> keys, boolean offline) {
        List<String> ids = keys.stream().map(SessionRowKey::id).distinct().toList();
        Map<String, Integer> createdOnById = new HashMap<>();
        query(entities, "select s.userSessionId, s.createdOn from PersistentUserSessionEntity s where s.offline = :offline and s.userSessionId in (:ids)")
                .setParameter("offline", flag(offline)).setParameter("ids", ids).getResultList()
                .forEach(each -> createdOnById.put((String) each[0], ((Number) each[1]).intValue()));
        Set<String> clients = new HashSet<>();
        if (keys.stream().anyMatch(each -> each.client() != null)) {
            query(entities, CLIENTS + "in (:ids)").setParameter("offline", flag(offline)).setParameter("ids", ids).getResultList()
                    .forEach(each -> clients.add(each[0] + "\n" + clientId(each)));
        }
        return keys.stream().filter(each -> Integer.valueOf(each.createdOn()).equals(createdOnById.get(each.id()))
                && (each.client() == null || clients.contains(each.id() + "\n" + each.client()))).toList();
    }

    private static EntityManager entities(KeycloakSession session) {
        return session.getProvider(JpaConnectionProvider.class).getEntityManager();
    }

    /** Creates a query that does not flush Keycloak's pending changes, so that their errors do not occur here. */
    private static TypedQuery<Object[]> query(EntityManager entities, String text) {
        return entities.createQuery(text, Object[].class).setFlushMode(FlushModeType.COMMIT);
    }

    private static String flag(boolean offline) {
        return offline ? "1" : "0";
    }
}
