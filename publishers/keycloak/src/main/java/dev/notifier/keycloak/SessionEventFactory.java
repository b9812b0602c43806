package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.notifier.keycloak.SessionTable.ClientRow;
import dev.notifier.keycloak.SessionTable.SessionRow;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.SessionEnded;
import dev.notifier.publisher.event.SessionKey;
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

/** Makes events of rows, with what one session of Keycloak's knows of realms and clients. */
final class SessionEventFactory {
    private final KeycloakSession session;
    private final Publisher publisher;
    private final Map<String, Optional<ClientEntryCache>> clients = new HashMap<>();

    SessionEventFactory(KeycloakSession session, Publisher publisher) {
        this.session = session;
        this.publisher = publisher;
    }

    /** Where rows are read. */
    KeycloakSession session() {
        return session;
    }

    /**
     * The events of a session.
     *
     * @param removed the realm, where it may be gone from the database already
     * @param only one client, by Keycloak's internal id; null for all
     */
    List<OutgoingEvent> of(SessionRow row, RealmModel removed, Lane lane, String reason, String only, String salt) {
        ClientEntryCache known = clients.computeIfAbsent(row.realm(), id -> Optional.ofNullable(clientsOf(id, removed))).orElse(null);
        if (known == null) {
            return List.of();
        }
        Map<String, List<ObjectNode>> byIssuer = new LinkedHashMap<>();
        StringBuilder salted = new StringBuilder(salt);
        for (ClientRow client : row.clients()) {
            ObjectNode entry = only == null || only.equals(client.client()) ? entry(known, client, row.user()) : null;
            if (entry != null) {
                byIssuer.computeIfAbsent(client.issuer(), key -> new ArrayList<>()).add(entry);
                salted.append(only == null ? "" : String.valueOf(client.timestamp()));
            }
        }
        SessionKey key = new SessionKey(row.id(), row.createdOn(), row.offline(), only);
        Instant now = Instant.now().truncatedTo(ChronoUnit.MILLIS);
        List<OutgoingEvent> found = new ArrayList<>();
        byIssuer.forEach((issuer, entries) -> {
            if (!entries.stream().allMatch(ClientEntryCache::isNobody)) {
                found.addAll(new SessionEnded(key, issuer, row.user(), entries, now, reason, salted.toString()).events(lane));
            }
        });
        return found;
    }

    /** One client that cannot be read takes no other with it. */
    private ObjectNode entry(ClientEntryCache known, ClientRow client, String user) {
        ObjectNode[] entry = new ObjectNode[1];
        publisher.guarded("reading a client", () -> entry[0] = known.entry(client.client(), client.issuer(), user));
        return entry[0]; // null if the client is deleted, or not of OpenID Connect
    }

    /** Read the realm again: the realm of the request may belong to a finished transaction. Null if its endings are not published. */
    private ClientEntryCache clientsOf(String id, RealmModel removed) {
        RealmModel realm = session.realms().getRealm(id);
        String name = realm != null ? realm.getName() : removed == null ? null : removed.getName();
        return name == null || !publisher.settings().tells(name) ? null : new ClientEntryCache(session, realm, publisher.settings().includeClientMetadata());
    }
}
