package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.notifier.keycloak.ClientMetadata.Surroundings;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.keycloak.crypto.Algorithm;
import org.keycloak.models.ClientModel;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.ProtocolMapperModel;
import org.keycloak.models.RealmModel;
import org.keycloak.protocol.ProtocolMapper;
import org.keycloak.protocol.oidc.OIDCLoginProtocol;
import org.keycloak.protocol.oidc.mappers.AbstractPairwiseSubMapper;
import org.keycloak.protocol.oidc.mappers.PairwiseSubMapperHelper;
import org.keycloak.protocol.oidc.utils.PairwiseSubMapperUtils;
import org.keycloak.urls.UrlType;

/** The clients of one realm as entries of events. Each is read once, however many sessions it has. */
final class Clients {
    private static final Set<String> KEYCLOAKS_OWN = Set.of("security-admin-console", "account-console", "account", "admin-cli", "broker", "realm-management");

    private final KeycloakSession session;
    private final RealmModel realm;
    private final boolean withMetadata;
    private final Map<String, Optional<Known>> known = new HashMap<>();

    /** @param realm read in this session: one from elsewhere may be stale */
    Clients(KeycloakSession session, RealmModel realm, boolean withMetadata) {
        this.session = session;
        this.realm = realm;
        this.withMetadata = withMetadata;
    }

    /** The entry of a client for a user; null if it is none of OpenID Connect, or deleted. */
    ObjectNode entry(String internalId, String issuer, String user) {
        Known client = known.computeIfAbsent(internalId + '\n' + issuer, key -> Optional.ofNullable(read(internalId, issuer))).orElse(null);
        if (client == null) {
            return null;
        }
        ObjectNode entry = client.entry.deepCopy();
        if (client.pairwise != null) {
            entry.put("sub", client.pairwise.generateSub(client.mapper, client.sector, user));
        }
        return entry;
    }

    /** True if nobody needs to hear of a session with this client: it is one of Keycloak's own, and has no address. */
    static boolean isNobody(ObjectNode entry) {
        return KEYCLOAKS_OWN.contains(entry.get("client_id").textValue()) && !entry.path("backchannel_logout_uri").isTextual();
    }

    private Known read(String internalId, String issuer) {
        ClientModel client = realm.getClientById(internalId);
        if (client == null || client.getProtocol() != null && !OIDCLoginProtocol.LOGIN_PROTOCOL.equals(client.getProtocol())) {
            return null;
        }
        ObjectNode entry = withMetadata
                ? ClientMetadata.of(new ClientMetadata.Client(client.getClientId(), client.isEnabled(), client.getRootUrl(), client::getAttribute), around(issuer))
                : ClientMetadata.named(client.getClientId());
        for (ProtocolMapperModel mapper : client.getProtocolMappersStream().toList()) {
            if (session.getKeycloakSessionFactory().getProviderFactory(ProtocolMapper.class, mapper.getProtocolMapper()) instanceof AbstractPairwiseSubMapper pairwise) {
                return new Known(entry, pairwise, mapper, sector(client, mapper));
            }
        }
        return new Known(entry, null, null, null);
    }

    /** As AbstractPairwiseSubMapper does for ID tokens. */
    private static String sector(ClientModel client, ProtocolMapperModel mapper) {
        String uri = PairwiseSubMapperHelper.getSectorIdentifierUri(mapper);
        return uri != null && !uri.isEmpty() ? PairwiseSubMapperUtils.resolveValidSectorIdentifier(uri)
                : PairwiseSubMapperUtils.resolveValidSectorIdentifier(client.getRootUrl(), client.getRedirectUris());
    }

    /** Keycloak's own address as the user saw it: there is no request when a session runs out. */
    private Surroundings around(String issuer) {
        int end = issuer.lastIndexOf("/realms/");
        String base = end < 0 ? issuer : issuer.substring(0, end);
        String algorithm = realm.getDefaultSignatureAlgorithm();
        return new Surroundings(base, admin(base), algorithm == null || algorithm.isBlank() ? Algorithm.RS256 : algorithm);
    }

    private String admin(String base) {
        try {
            return session.getContext().getUri(UrlType.ADMIN).getBaseUri().toString().replaceFirst("/$", "");
        } catch (RuntimeException noRequest) {
            return base;
        }
    }

    /** @param pairwise null where the client knows the user by the user's own id */
    private record Known(ObjectNode entry, AbstractPairwiseSubMapper pairwise, ProtocolMapperModel mapper, String sector) {
    }
}
