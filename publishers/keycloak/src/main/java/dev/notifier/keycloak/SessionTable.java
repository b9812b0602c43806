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
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.keycloak.connections.jpa.JpaConnectionProvider;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.KeycloakSessionFactory;
import org.keycloak.models.jpa.session.PersistentClientSessionEntity;
import org.keycloak.models.jpa.session.PersistentUserSessionEntity;
import org.keycloak.models.utils.KeycloakModelUtils;
import org.keycloak.storage.StorageId;
import org.keycloak.util.JsonSerialization;

/** The tables of sessions, read as they stand: expired sessions too. By columns alone, which are the same in all versions. */
final class SessionTable {
    private static final String CLIENT = "select c.userSessionId, c.clientId, c.clientStorageProvider, c.externalClientId, c.timestamp, c.data from PersistentClientSessionEntity c";
    private static final String CLIENTS = CLIENT + " where c.offline = :offline and c.userSessionId ";
    private static final String CLIENTS_OF_SESSIONS = CLIENT + ", PersistentUserSessionEntity s where s.offline = :offline and c.offline = s.offline"
            + " and c.userSessionId = s.userSessionId and ";
    private static final String SESSIONS = "select s.userSessionId, s.realmId, s.userId, s.createdOn from PersistentUserSessionEntity s where s.offline = :offline and ";

    /** Some databases take no longer list. */
    private static final int MOST_IDS = 1_000;

    private static final JsonFactory JSON = JsonSerialization.mapper.getFactory();
    private static final boolean REMEMBER_ME = Arrays.stream(PersistentUserSessionEntity.class.getDeclaredFields()).anyMatch(each -> each.getName().equals("rememberMe"));

    private SessionTable() {
    }

    /** @param clients of the session, in the order of the table */
    record SessionRow(String id, String realm, String user, int createdOn, boolean offline, List<ClientRow> clients) {
        SessionKey key() {
            return new SessionKey(id, createdOn, offline, null);
        }
    }

    /**
     * @param client Keycloak's internal id
     * @param issuer as it stood in the client's ID token; null if there was none
     */
    record ClientRow(String client, int timestamp, String issuer) {
    }

    /** True if this Keycloak keeps remember me in a column, and has a separate expiry rule for such sessions. */
    static boolean hasRememberMe() {
        return REMEMBER_ME;
    }

    /** The session, or null. */
    static SessionRow session(KeycloakSession session, String id, boolean offline) {
        EntityManager entities = entities(session);
        List<Object[]> found = query(entities, SESSIONS + "s.userSessionId = :id")
                .setParameter("offline", flag(offline)).setParameter("id", id).getResultList();
        Map<String, SessionRow> rows = rows(found, offline);
        addClients(rows, query(entities, CLIENTS + "= :id").setParameter("offline", flag(offline)).setParameter("id", id));
        return rows.get(id);
    }

    /**
     * So many of the candidates whose ids come after this one, in the order of their ids.
     *
     * Both queries have the same text for each page: Hibernate needs longer than the database for a query with 500 ids.
     */
    static List<SessionRow> page(KeycloakSession session, SessionCriteria candidates, int kind, String after, int most) {
        EntityManager entities = entities(session);
        boolean offline = candidates.kinds().get(kind);
        String page = "s.realmId = :realm and s.userSessionId > :after and " + candidates.conditions().get(kind);
        List<Object[]> found = candidates(entities, SESSIONS + page + " order by s.userSessionId", candidates, kind, after).setMaxResults(most).getResultList();
        if (found.isEmpty()) {
            return List.of();
        }
        Map<String, SessionRow> rows = rows(found, offline);
        String last = (String) found.get(found.size() - 1)[0];
        addClients(rows, candidates(entities, CLIENTS_OF_SESSIONS + page + " and s.userSessionId <= :last", candidates, kind, after).setParameter("last", last));
        return List.copyOf(rows.values());
    }

    private static TypedQuery<Object[]> candidates(EntityManager entities, String text, SessionCriteria candidates, int kind, String after) {
        TypedQuery<Object[]> query = query(entities, text).setParameter("realm", candidates.realm().getId()).setParameter("after", after)
                .setParameter("offline", flag(candidates.kinds().get(kind)));
        candidates.parameters().forEach((name, value) -> {
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

    /** A session that started between both queries is left to the next page. */
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

    /** The note `iss`, read without making anything of the rest, which is long. */
    private static String issuer(String data) {
        if (data == null) {
            return null;
        }
        try (JsonParser json = JSON.createParser(data)) {
            boolean found = json.nextToken() == JsonToken.START_OBJECT && goTo(json, "notes") && json.currentToken() == JsonToken.START_OBJECT && goTo(json, "iss");
            return found && json.currentToken() == JsonToken.VALUE_STRING ? json.getText() : null;
        } catch (IOException unreadable) {
            return null;
        }
    }

    /** At the value of this member of the object that was entered; false if it has none. */
    private static boolean goTo(JsonParser json, String member) throws IOException {
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

    /** The sessions that live, read in a separate transaction: with repeatable reads an older transaction would still see deleted rows. */
    static Set<SessionKey> living(KeycloakSessionFactory factory, Collection<SessionKey> keys) {
        Set<SessionKey> living = new HashSet<>();
        KeycloakModelUtils.runJobInTransaction(factory, session -> {
            for (boolean offline : new boolean[] {false, true}) {
                List<SessionKey> kind = keys.stream().filter(each -> each.offline() == offline).toList();
                for (int from = 0; from < kind.size(); from += MOST_IDS) {
                    living.addAll(living(entities(session), kind.subList(from, Math.min(from + MOST_IDS, kind.size())), offline));
                }
            }
        });
        return living;
    }

    private static List<SessionKey> living(EntityManager entities, List<SessionKey> keys, boolean offline) {
        List<String> ids = keys.stream().map(SessionKey::id).distinct().toList();
        Map<String, Integer> sessions = new LinkedHashMap<>();
        query(entities, "select s.userSessionId, s.createdOn from PersistentUserSessionEntity s where s.offline = :offline and s.userSessionId in (:ids)")
                .setParameter("offline", flag(offline)).setParameter("ids", ids).getResultList()
                .forEach(each -> sessions.put((String) each[0], ((Number) each[1]).intValue()));
        Set<String> parts = new HashSet<>();
        if (keys.stream().anyMatch(each -> each.client() != null)) {
            query(entities, CLIENTS + "in (:ids)").setParameter("offline", flag(offline)).setParameter("ids", ids).getResultList()
                    .forEach(each -> parts.add(each[0] + "\n" + clientId(each)));
        }
        return keys.stream().filter(each -> Integer.valueOf(each.createdOn()).equals(sessions.get(each.id()))
                && (each.client() == null || parts.contains(each.id() + "\n" + each.client()))).toList();
    }

    private static EntityManager entities(KeycloakSession session) {
        return session.getProvider(JpaConnectionProvider.class).getEntityManager();
    }

    /** Create a query that does not flush Keycloak's pending changes, so that their errors do not occur here. */
    private static TypedQuery<Object[]> query(EntityManager entities, String text) {
        return entities.createQuery(text, Object[].class).setFlushMode(FlushModeType.COMMIT);
    }

    private static String flag(boolean offline) {
        return offline ? "1" : "0";
    }
}
