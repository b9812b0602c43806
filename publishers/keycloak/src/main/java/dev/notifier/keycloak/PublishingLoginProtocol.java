package dev.notifier.keycloak;

import dev.notifier.keycloak.ClientSignOutRegistry.ClientSignOut;
import jakarta.ws.rs.core.Response;
import org.keycloak.models.AbstractKeycloakTransaction;
import org.keycloak.models.AuthenticatedClientSessionModel;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.UserSessionModel;
import org.keycloak.protocol.oidc.OIDCAdvancedConfigWrapper;
import org.keycloak.protocol.oidc.OIDCLoginProtocol;
import org.keycloak.protocol.oidc.OIDCProviderConfig;

/** OpenID Connect that records the sign-out of a client instead of posting a logout token to it. */
final class PublishingLoginProtocol extends OIDCLoginProtocol {
    private final KeycloakSession keycloak;
    private final KeycloakPublisher publisher;

    PublishingLoginProtocol(OIDCProviderConfig config, KeycloakSession keycloak, KeycloakPublisher publisher) {
        super(config);
        this.keycloak = keycloak;
        this.publisher = publisher;
    }

    @Override
    public Response backchannelLogout(UserSessionModel userSession, AuthenticatedClientSessionModel clientSession) {
        if (!publisher.publishes(clientSession.getRealm().getName())) {
            return super.backchannelLogout(userSession, clientSession);
        }
        publisher.runGuarded("a client's sign-out", () -> record(userSession, clientSession));
        String url = OIDCAdvancedConfigWrapper.fromClientModel(clientSession.getClient()).getBackchannelLogoutUrl();
        return url == null ? super.backchannelLogout(userSession, clientSession) : Response.ok().build(); // Keycloak still posts to admin URLs
    }

    private void record(UserSessionModel userSession, AuthenticatedClientSessionModel clientSession) {
        if (!CompatibilityCheck.areSessionsStored() && !userSession.isOffline()) {
            UnstoredSessionEndCollector.of(keycloak, publisher).onClientSignOut(userSession, clientSession);
            return;
        }
        ClientSignOut signOut = new ClientSignOut(userSession.getId(), clientSession.getClient().getId(), userSession.isOffline());
        keycloak.getTransactionManager().enlistAfterCompletion(new AbstractKeycloakTransaction() { // Keycloak has written the tables by then
            @Override
            protected void commitImpl() {
                publisher.clientSignOuts().end(signOut);
            }

            @Override
            protected void rollbackImpl() {
                publisher.clientSignOuts().end(signOut);
            }
        });
        publisher.clientSignOuts().begin(signOut);
    }
}
