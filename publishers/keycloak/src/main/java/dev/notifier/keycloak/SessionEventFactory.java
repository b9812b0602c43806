package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.notifier.keycloak.SessionReader.ClientRow;
import dev.notifier.keycloak.SessionReader.SessionRow;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.SessionEnded;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.RealmModel;

/** Creates events from rows, with the realms and clients as one session of Keycloak reads them. */
final class SessionEventFactory {
    private final KeycloakSession session;
    private final KeycloakPublisher publisher;
    private final Map<String, Optional<ClientEntryCache>> clientsByRealm = new HashMap<>();

    SessionEventFactory(KeycloakSession session, KeycloakPublisher publisher) {
        this.session = session;
        this.publisher = publisher;
    }

    /** Returns the session in which rows are read. */
    KeycloakSession session() {
        return session;
    }

    /** Returns the events of a session that ends. */
    List<OutgoingEvent> create(SessionRow row, Lane lane, String reason) {
        return create(row, null, lane, reason);
    }

    /**
     * Returns the events of a session that ends.
     *
     * @param realm the realm if it may have been deleted from the database already; may be null
     */
    List<OutgoingEvent> create(SessionRow row, RealmModel realm, Lane lane, String reason) {
        return create(row, realm, lane, reason, row.clients(), null, "");
    }

    /** Returns the events of the end of a session for one client, by Keycloak's internal id. */
    List<OutgoingEvent> createForClient(SessionRow row, String client) {
        List<ClientRow> clients = row.clients().stream().filter(each -> each.client().equals(client)).toList();
        return create(row, null, Lane.EVENTS, null, clients, client, "");
    }

    /** Returns the events that notify the clients of a disabled user. Each call returns other ids, since the session continues. */
    List<OutgoingEvent> createForDisabledUser(SessionRow row) {
        return create(row, null, Lane.EVENTS, "terminated", row.clients(), null, "disabled" + System.currentTimeMillis());
    }

    private List<OutgoingEvent> create(SessionRow row, RealmModel realm, Lane lane, String reason, List<ClientRow> clients, String onlyClient, String salt) {
        ClientEntryCache cache = clientsByRealm.computeIfAbsent(row.realm(), id -> Optional.ofNullable(readRealm(id, realm))).orElse(null);
        if (cache == null) {
            return List.of();
        }
        Map<String, List<ObjectNode>> entriesByIssuer = new LinkedHashMap<>();
        StringBuilder idSalt = new StringBuilder(salt);
        for (ClientRow client : clients) {
            ObjectNode entry = createEntry(cache, client, row.user());
            if (entry != null) {
                entriesByIssuer.computeIfAbsent(client.issuer(), key -> new ArrayList<>()).add(entry);
                idSalt.append(onlyClient == null ? "" : String.valueOf(client.timestamp()));
            }
        }
        SessionRowKey key = new SessionRowKey(row.id(), row.createdOn(), row.offline(), onlyClient);
        Instant now = Instant.now().truncatedTo(ChronoUnit.MILLIS);
        List<OutgoingEvent> events = new ArrayList<>();
        entriesByIssuer.forEach((issuer, entries) -> {
            if (!entries.stream().allMatch(ClientEntryCache::isOwnWithoutAddress)) {
                String idSource = key.toIdSource(issuer, idSalt.toString());
                events.addAll(new SessionEnded(key.toSessionKey(), idSource, issuer, row.user(), row.id(), entries, now, reason).toEvents(lane));
            }
        });
        return events;
    }

    /** Returns null if the client is deleted, is not an OpenID Connect client, or cannot be read. The others are published. */
    private ObjectNode createEntry(ClientEntryCache cache, ClientRow client, String user) {
        ObjectNode[] entry = new ObjectNode[1];
        publisher.runGuarded("reading a client", () -> entry[0] = cache.entry(client.client(), client.issuer(), user));
        return entry[0];
    }

    /** Reads the realm again, because the request's model may belong to a finished transaction. Returns null if the realm is not published. */
    private ClientEntryCache readRealm(String id, RealmModel removed) {
        RealmModel realm = session.realms().getRealm(id);
        String name = realm != null ? realm.getName() : removed == null ? null : removed.getName();
        return name == null || !publisher.publishes(name) ? null : new ClientEntryCache(session, realm, publisher.settings().includeClientMetadata());
    }
}
