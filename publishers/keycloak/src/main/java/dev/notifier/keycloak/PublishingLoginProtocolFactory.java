package dev.notifier.keycloak;

import org.keycloak.Config;
import org.keycloak.models.KeycloakSession;
import org.keycloak.protocol.LoginProtocol;
import org.keycloak.protocol.oidc.OIDCLoginProtocol;
import org.keycloak.protocol.oidc.OIDCLoginProtocolFactory;
import org.keycloak.protocol.oidc.OIDCProviderConfig;

/** Replaces Keycloak's factory of OpenID Connect: it has the same id and a higher order. Keycloak then does not post to clients. */
public class PublishingLoginProtocolFactory extends OIDCLoginProtocolFactory {
    private OIDCProviderConfig config;

    @Override
    public void init(Config.Scope scope) {
        super.init(scope);
        config = new OIDCProviderConfig(scope); // the parent's is private
    }

    @Override
    public LoginProtocol create(KeycloakSession session) {
        KeycloakPublisher publisher = KeycloakPublisher.of(session);
        OIDCLoginProtocol protocol = publisher == null ? new OIDCLoginProtocol(config) : new PublishingLoginProtocol(config, session, publisher);
        return protocol.setSession(session);
    }

    @Override
    public int order() {
        return super.order() + 1;
    }
}
