package dev.notifier.keycloak;

import dev.notifier.keycloak.ClientEntryFactory.Client;
import java.util.HashMap;
import java.util.Map;
import org.keycloak.crypto.Algorithm;
import org.keycloak.models.ClientModel;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.ProtocolMapperModel;
import org.keycloak.protocol.ProtocolMapper;
import org.keycloak.protocol.oidc.OIDCLoginProtocol;
import org.keycloak.protocol.oidc.mappers.AbstractPairwiseSubMapper;
import org.keycloak.protocol.oidc.mappers.PairwiseSubMapperHelper;
import org.keycloak.protocol.oidc.utils.PairwiseSubMapperUtils;

/**
 * What is known of a client, copied: it may be deleted before its sessions are.
 *
 * @param pairwise null where the client knows the user by the user's own id
 */
record ClientSnapshot(Client client, String realmAlgorithm, AbstractPairwiseSubMapper pairwise, ProtocolMapperModel mapper, String sector) {
    /** Null if it is not an OpenID Connect client. */
    static ClientSnapshot of(KeycloakSession session, ClientModel client) {
        if (client.getProtocol() != null && !OIDCLoginProtocol.LOGIN_PROTOCOL.equals(client.getProtocol())) {
            return null;
        }
        Map<String, String> attributes = new HashMap<>(client.getAttributes());
        String base = client.getBaseUrl() == null ? "" : client.getBaseUrl();
        Client copied = new Client(client.getClientId(), client.isEnabled(), client.getRootUrl(), client.isFrontchannelLogout() ? base : null, attributes::get);
        String algorithm = client.getRealm().getDefaultSignatureAlgorithm();
        String realmAlgorithm = algorithm == null || algorithm.isBlank() ? Algorithm.RS256 : algorithm;
        for (ProtocolMapperModel mapper : client.getProtocolMappersStream().toList()) {
            if (session.getKeycloakSessionFactory().getProviderFactory(ProtocolMapper.class, mapper.getProtocolMapper()) instanceof AbstractPairwiseSubMapper pairwise) {
                return new ClientSnapshot(copied, realmAlgorithm, pairwise, mapper, sector(client, mapper));
            }
        }
        return new ClientSnapshot(copied, realmAlgorithm, null, null, null);
    }

    /** As AbstractPairwiseSubMapper does for ID tokens. */
    private static String sector(ClientModel client, ProtocolMapperModel mapper) {
        String uri = PairwiseSubMapperHelper.getSectorIdentifierUri(mapper);
        return uri != null && !uri.isEmpty() ? PairwiseSubMapperUtils.resolveValidSectorIdentifier(uri)
                : PairwiseSubMapperUtils.resolveValidSectorIdentifier(client.getRootUrl(), client.getRedirectUris());
    }

    /** The user as this client knows it; null if that is the user's own id. */
    String subject(String user) {
        return pairwise == null ? null : pairwise.generateSub(mapper, sector, user);
    }
}
