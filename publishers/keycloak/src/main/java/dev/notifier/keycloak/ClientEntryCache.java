package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.notifier.keycloak.ClientEntryFactory.Surroundings;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.keycloak.models.ClientModel;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.RealmModel;
import org.keycloak.urls.UrlType;

/** The clients of one realm as entries of events. Each is read once, however many sessions it has. */
final class ClientEntryCache {
    private static final Set<String> KEYCLOAKS_OWN = Set.of("security-admin-console", "account-console", "account", "admin-cli", "broker", "realm-management");
    private static final String REMOVED = "notifier.removed-clients";

    private final KeycloakSession session;
    private final RealmModel realm;
    private final boolean withMetadata;
    private final Map<String, Optional<ClientSnapshot>> known = new HashMap<>();
    private final Map<String, ObjectNode> entries = new HashMap<>();

    /** @param realm read in this session: one from elsewhere may be stale. Null if the realm is being removed */
    ClientEntryCache(KeycloakSession session, RealmModel realm, boolean withMetadata) {
        this.session = session;
        this.realm = realm;
        this.withMetadata = withMetadata;
    }

    /** Keep what is known of a client that is being removed: a realm's clients go before its sessions. */
    static void remember(KeycloakSession session, ClientModel client) {
        ClientSnapshot facts = ClientSnapshot.of(session, client);
        if (facts != null) {
            removed(session).put(client.getId(), facts);
        }
    }

    @SuppressWarnings("unchecked")
    private static Map<String, ClientSnapshot> removed(KeycloakSession session) {
        Map<String, ClientSnapshot> kept = (Map<String, ClientSnapshot>) session.getAttribute(REMOVED);
        if (kept == null) {
            kept = new HashMap<>();
            session.setAttribute(REMOVED, kept);
        }
        return kept;
    }

    /** The entry of a client for a user; null if it is none of OpenID Connect, or deleted. */
    ObjectNode entry(String internalId, String issuer, String user) {
        ClientSnapshot facts = known.computeIfAbsent(internalId, key -> Optional.ofNullable(read(key))).orElse(null);
        if (facts == null) {
            return null;
        }
        if (issuer == null) {
            throw new IllegalStateException("the row of client " + facts.client().clientId() + " in the table of sessions does not contain its issuer");
        }
        ObjectNode entry = entries.computeIfAbsent(internalId + '\n' + issuer, key -> entry(facts, issuer)).deepCopy();
        String subject = facts.subject(user);
        return subject == null ? entry : entry.put("sub", subject);
    }

    /** True if the client needs no notification: it belongs to Keycloak itself, and has no address. */
    static boolean isNobody(ObjectNode entry) {
        return KEYCLOAKS_OWN.contains(entry.get("client_id").textValue()) && !entry.path("backchannel_logout_uri").isTextual();
    }

    private ClientSnapshot read(String internalId) {
        ClientModel client = realm == null ? null : realm.getClientById(internalId);
        return client == null ? removed(session).get(internalId) : ClientSnapshot.of(session, client);
    }

    /** Keycloak's own address as the user saw it: there is no request when a session runs out. */
    private ObjectNode entry(ClientSnapshot facts, String issuer) {
        if (!withMetadata) {
            return ClientEntryFactory.named(facts.client().clientId());
        }
        int end = issuer.lastIndexOf("/realms/");
        String base = end < 0 ? issuer : issuer.substring(0, end);
        return ClientEntryFactory.of(facts.client(), new Surroundings(base, admin(base), facts.realmAlgorithm()));
    }

    private String admin(String base) {
        try {
            return session.getContext().getUri(UrlType.ADMIN).getBaseUri().toString().replaceFirst("/$", "");
        } catch (RuntimeException noRequest) {
            return base;
        }
    }
}
