package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.notifier.keycloak.ClientEntryFactory.RealmContext;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.keycloak.models.ClientModel;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.RealmModel;
import org.keycloak.urls.UrlType;

/** Creates the entries of events for the clients of one realm. Each client is read once, however many sessions it has. */
final class ClientEntryCache {
    private static final Set<String> OWN_CLIENTS = Set.of("security-admin-console", "account-console", "account", "admin-cli", "broker", "realm-management");
    private static final String REMOVED_CLIENTS = "notifier.removed-clients";

    private final KeycloakSession session;
    private final RealmModel realm;
    private final boolean includeMetadata;
    private final Map<String, Optional<ClientSnapshot>> clients = new HashMap<>();
    private final Map<String, ObjectNode> entries = new HashMap<>();

    /** @param realm the realm as this session has read it; null if the realm is being removed */
    ClientEntryCache(KeycloakSession session, RealmModel realm, boolean includeMetadata) {
        this.session = session;
        this.realm = realm;
        this.includeMetadata = includeMetadata;
    }

    /** Keeps a snapshot of a client that is being removed: Keycloak removes a realm's clients before its sessions. */
    static void remember(KeycloakSession session, ClientModel client) {
        ClientSnapshot snapshot = ClientSnapshot.of(session, client);
        if (snapshot != null) {
            removedClients(session).put(client.getId(), snapshot);
        }
    }

    @SuppressWarnings("unchecked")
    private static Map<String, ClientSnapshot> removedClients(KeycloakSession session) {
        Map<String, ClientSnapshot> removed = (Map<String, ClientSnapshot>) session.getAttribute(REMOVED_CLIENTS);
        if (removed == null) {
            removed = new HashMap<>();
            session.setAttribute(REMOVED_CLIENTS, removed);
        }
        return removed;
    }

    /** Returns the entry of a client for a user; null if the client is deleted, or is not an OpenID Connect client. */
    ObjectNode entry(String internalId, String issuer, String user) {
        ClientSnapshot client = clients.computeIfAbsent(internalId, key -> Optional.ofNullable(read(key))).orElse(null);
        if (client == null) {
            return null;
        }
        if (issuer == null) {
            throw new IllegalStateException("the row of client " + client.attributes().clientId() + " in the table of sessions does not contain its issuer");
        }
        ObjectNode entry = entries.computeIfAbsent(internalId + '\n' + issuer, key -> createEntry(client, issuer)).deepCopy();
        String subject = client.pairwiseSubject(user);
        return subject == null ? entry : entry.put("sub", subject);
    }

    /** Returns whether the entry is of one of Keycloak's own clients and has no address, so that it needs no notification. */
    static boolean isOwnWithoutAddress(ObjectNode entry) {
        return OWN_CLIENTS.contains(entry.get("client_id").textValue()) && !entry.path("backchannel_logout_uri").isTextual();
    }

    private ClientSnapshot read(String internalId) {
        ClientModel client = realm == null ? null : realm.getClientById(internalId);
        return client == null ? removedClients(session).get(internalId) : ClientSnapshot.of(session, client);
    }

    private ObjectNode createEntry(ClientSnapshot client, String issuer) {
        if (!includeMetadata) {
            return ClientEntryFactory.createWithId(client.attributes().clientId());
        }
        int end = issuer.lastIndexOf("/realms/"); // Keycloak's address is in the issuer: an expiry has no request to read it from
        String baseUrl = end < 0 ? issuer : issuer.substring(0, end);
        return ClientEntryFactory.create(client.attributes(), new RealmContext(baseUrl, adminUrl(baseUrl), client.realmAlgorithm()));
    }

    private String adminUrl(String baseUrl) {
        try {
            return session.getContext().getUri(UrlType.ADMIN).getBaseUri().toString().replaceFirst("/$", "");
        } catch (RuntimeException noRequest) {
            return baseUrl;
        }
    }
}
