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

/** Posts to no client that has a back-channel logout URL, but notes that Keycloak wanted to. */
final class PublishingLoginProtocol extends OIDCLoginProtocol {
    private final KeycloakSession keycloak;
    private final Publisher publisher;

    PublishingLoginProtocol(OIDCProviderConfig config, KeycloakSession keycloak, Publisher publisher) {
        super(config);
        this.keycloak = keycloak;
        this.publisher = publisher;
    }

    @Override
    public Response backchannelLogout(UserSessionModel user, AuthenticatedClientSessionModel client) {
        if (!publisher.settings().tells(client.getRealm().getName())) {
            return super.backchannelLogout(user, client);
        }
        publisher.guarded("a client's sign-out", () -> note(user, client));
        String url = OIDCAdvancedConfigWrapper.fromClientModel(client.getClient()).getBackchannelLogoutUrl();
        return url == null ? super.backchannelLogout(user, client) : Response.ok().build(); // admin URLs live on
    }

    private void note(UserSessionModel user, AuthenticatedClientSessionModel client) {
        if (!CompatibilityCheck.sessionsAreStored() && !user.isOffline()) {
            UnstoredSessionEndCollector.of(keycloak, publisher).parted(user, client);
            return;
        }
        ClientSignOut signOut = new ClientSignOut(user.getId(), client.getClient().getId(), user.isOffline());
        keycloak.getTransactionManager().enlistAfterCompletion(new AbstractKeycloakTransaction() { // after the tables are written
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
