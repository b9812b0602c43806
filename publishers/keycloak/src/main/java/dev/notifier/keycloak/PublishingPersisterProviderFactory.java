package dev.notifier.keycloak;

import java.lang.reflect.Proxy;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.jpa.session.JpaUserSessionPersisterProviderFactory;
import org.keycloak.models.session.UserSessionPersisterProvider;

/**
 * Replaces Keycloak's factory of the session persister. Every session that ends is deleted by the persister, and its clients can
 * be read just before.
 *
 * The persister is wrapped by a proxy rather than extended, because its constructors and methods differ between the supported
 * versions.
 */
public class PublishingPersisterProviderFactory extends JpaUserSessionPersisterProviderFactory {
    @Override
    public UserSessionPersisterProvider create(KeycloakSession session) {
        UserSessionPersisterProvider persister = super.create(session);
        KeycloakPublisher publisher = KeycloakPublisher.of(session);
        if (publisher == null) {
            return persister;
        }
        return (UserSessionPersisterProvider) Proxy.newProxyInstance(PublishingPersisterProviderFactory.class.getClassLoader(),
                new Class<?>[] {UserSessionPersisterProvider.class}, new PublishingPersisterHandler(session, persister, publisher));
    }

    @Override
    public int order() {
        return super.order() + 1;
    }
}
