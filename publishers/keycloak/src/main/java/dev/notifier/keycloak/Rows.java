package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.JsonNode;
import dev.notifier.keycloak.event.SessionKey;
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
final class Rows {
    private static final String CLIENTS = "select c.userSessionId, c.clientId, c.clientStorageProvider, c.externalClientId, c.timestamp, c.data"
            + " from PersistentClientSessionEntity c where c.offline = :offline and c.userSessionId ";
    private static final String SESSIONS = "select s.userSessionId, s.realmId, s.userId, s.createdOn from PersistentUserSessionEntity s where s.offline = :offline and ";
    private static final boolean REMEMBER_ME = Arrays.stream(PersistentUserSessionEntity.class.getDeclaredFields()).anyMatch(each -> each.getName().equals("rememberMe"));

    private Rows() {
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

    /** True if this Keycloak keeps remember me in a column, and lets such sessions run out by a rule of their own. */
    static boolean hasRememberMe() {
        return REMEMBER_ME;
    }

    /** The session, or null. */
    static SessionRow session(KeycloakSession session, String id, boolean offline) {
        EntityManager entities = entities(session);
        List<Object[]> found = query(entities, SESSIONS + "s.userSessionId = :id")
                .setParameter("offline", flag(offline)).setParameter("id", id).getResultList();
        return found.isEmpty() ? null : withClients(entities, found, offline).get(0);
    }

    /** So many of the candidates whose ids come after this one, in the order of their ids. */
    static List<SessionRow> page(KeycloakSession session, Candidates candidates, int kind, String after, int most) {
        EntityManager entities = entities(session);
        String condition = candidates.conditions().get(kind);
        TypedQuery<Object[]> query = query(entities, SESSIONS + "s.realmId = :realm and s.userSessionId > :after and " + condition
                + " order by s.userSessionId");
        query.setParameter("realm", candidates.realm().getId()).setParameter("after", after).setParameter("offline", flag(candidates.kinds().get(kind)));
        candidates.parameters().forEach((name, value) -> {
            if (condition.matches("(?s).*:" + name + "\\b.*")) {
                query.setParameter(name, value);
            }
        });
        List<Object[]> found = query.setMaxResults(most).getResultList();
        return found.isEmpty() ? List.of() : withClients(entities, found, candidates.kinds().get(kind));
    }

    private static List<SessionRow> withClients(EntityManager entities, List<Object[]> sessions, boolean offline) {
        Map<String, SessionRow> rows = new LinkedHashMap<>();
        for (Object[] each : sessions) {
            rows.put((String) each[0], new SessionRow((String) each[0], (String) each[1], (String) each[2], ((Number) each[3]).intValue(), offline, new ArrayList<>()));
        }
        List<Object[]> clients = rows.size() == 1
                ? query(entities, CLIENTS + "= :id").setParameter("offline", flag(offline)).setParameter("id", rows.keySet().iterator().next()).getResultList()
                : query(entities, CLIENTS + "in (:ids)").setParameter("offline", flag(offline)).setParameter("ids", rows.keySet()).getResultList();
        for (Object[] each : clients) {
            rows.get((String) each[0]).clients().add(new ClientRow(clientId(each), ((Number) each[4]).intValue(), issuer((String) each[5])));
        }
        return List.copyOf(rows.values());
    }

    private static String clientId(Object[] row) {
        return PersistentClientSessionEntity.EXTERNAL.equals(row[1]) ? new StorageId((String) row[2], (String) row[3]).getId() : (String) row[1];
    }

    private static String issuer(String data) {
        try {
            JsonNode issuer = data == null ? null : JsonSerialization.mapper.readTree(data).path("notes").path("iss");
            return issuer == null ? null : issuer.textValue();
        } catch (IOException unreadable) {
            return null;
        }
    }

    /** Those that live, seen in a transaction of its own: where the database repeats reads, an older one would still see what is gone. */
    static Set<SessionKey> living(KeycloakSessionFactory factory, Collection<SessionKey> keys) {
        Set<SessionKey> living = new HashSet<>();
        KeycloakModelUtils.runJobInTransaction(factory, session -> {
            for (boolean offline : new boolean[] {false, true}) {
                List<SessionKey> kind = keys.stream().filter(each -> each.offline() == offline).toList();
                if (!kind.isEmpty()) {
                    living.addAll(living(entities(session), kind, offline));
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

    /** Keycloak's own changes wait for Keycloak: what goes wrong with them is not for us to meet. */
    private static TypedQuery<Object[]> query(EntityManager entities, String text) {
        return entities.createQuery(text, Object[].class).setFlushMode(FlushModeType.COMMIT);
    }

    private static String flag(boolean offline) {
        return offline ? "1" : "0";
    }
}
