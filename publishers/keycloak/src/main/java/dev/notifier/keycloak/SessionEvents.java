package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.notifier.keycloak.Rows.ClientRow;
import dev.notifier.keycloak.Rows.SessionRow;
import dev.notifier.keycloak.event.Ending;
import dev.notifier.keycloak.event.Lane;
import dev.notifier.keycloak.event.SessionEnded;
import dev.notifier.keycloak.event.SessionKey;
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
final class SessionEvents {
    private final KeycloakSession session;
    private final Publisher publisher;
    private final Map<String, Optional<Clients>> clients = new HashMap<>();

    SessionEvents(KeycloakSession session, Publisher publisher) {
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
    List<Ending> of(SessionRow row, RealmModel removed, Lane lane, String reason, String only, String salt) {
        Clients known = clients.computeIfAbsent(row.realm(), id -> Optional.ofNullable(clientsOf(id, removed))).orElse(null);
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
        List<Ending> found = new ArrayList<>();
        byIssuer.forEach((issuer, entries) -> {
            if (!entries.stream().allMatch(Clients::isNobody)) {
                found.addAll(new SessionEnded(key, issuer, row.user(), entries, now, reason, salted.toString()).endings(lane));
            }
        });
        return found;
    }

    /** One client that cannot be read takes no other with it. */
    private ObjectNode entry(Clients known, ClientRow client, String user) {
        ObjectNode[] entry = new ObjectNode[1];
        publisher.guarded("reading a client", () -> entry[0] = known.entry(client.client(), client.issuer(), user));
        return entry[0]; // null if the client is deleted, or not of OpenID Connect
    }

    /** Read the realm again: the realm of the request may belong to a finished transaction. Null if its endings are not published. */
    private Clients clientsOf(String id, RealmModel removed) {
        RealmModel realm = session.realms().getRealm(id);
        String name = realm != null ? realm.getName() : removed == null ? null : removed.getName();
        return name == null || !publisher.settings().tells(name) ? null : new Clients(session, realm, publisher.settings().includeClientMetadata());
    }
}
