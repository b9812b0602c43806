package dev.notifier.keycloak;

import dev.notifier.keycloak.ClientEntryFactory.ClientAttributes;
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
 * A copy of the data of a client, which may be deleted before its sessions are.
 *
 * @param pairwise null if the client does not have pairwise subjects
 * @param sector the sector identifier of pairwise subjects
 */
record ClientSnapshot(ClientAttributes attributes, String realmAlgorithm, AbstractPairwiseSubMapper pairwise, ProtocolMapperModel mapper, String sector) {
    /** Returns null if the client is not an OpenID Connect client. */
    static ClientSnapshot of(KeycloakSession session, ClientModel client) {
        if (client.getProtocol() != null && !OIDCLoginProtocol.LOGIN_PROTOCOL.equals(client.getProtocol())) {
            return null;
        }
        Map<String, String> attributes = new HashMap<>(client.getAttributes());
        String base = client.getBaseUrl() == null ? "" : client.getBaseUrl();
        ClientAttributes copy = new ClientAttributes(client.getClientId(), client.isEnabled(), client.getRootUrl(), client.isFrontchannelLogout() ? base : null, attributes::get);
        String algorithm = client.getRealm().getDefaultSignatureAlgorithm();
        String realmAlgorithm = algorithm == null || algorithm.isBlank() ? Algorithm.RS256 : algorithm;
        for (ProtocolMapperModel mapper : client.getProtocolMappersStream().toList()) {
            if (session.getKeycloakSessionFactory().getProviderFactory(ProtocolMapper.class, mapper.getProtocolMapper()) instanceof AbstractPairwiseSubMapper pairwise) {
                return new ClientSnapshot(copy, realmAlgorithm, pairwise, mapper, sector(client, mapper));
            }
        }
        return new ClientSnapshot(copy, realmAlgorithm, null, null, null);
    }

    /** Returns the sector identifier that AbstractPairwiseSubMapper uses for ID tokens. */
    private static String sector(ClientModel client, ProtocolMapperModel mapper) {
        String uri = PairwiseSubMapperHelper.getSectorIdentifierUri(mapper);
        return uri != null && !uri.isEmpty() ? PairwiseSubMapperUtils.resolveValidSectorIdentifier(uri)
                : PairwiseSubMapperUtils.resolveValidSectorIdentifier(client.getRootUrl(), client.getRedirectUris());
    }

    /** Returns the client's pairwise subject of a user; null if the client has the user's id. */
    String pairwiseSubject(String user) {
        return pairwise == null ? null : pairwise.generateSub(mapper, sector, user);
    }
}
