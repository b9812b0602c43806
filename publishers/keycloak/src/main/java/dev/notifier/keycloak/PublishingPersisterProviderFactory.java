package dev.notifier.keycloak;

import java.lang.reflect.Proxy;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.jpa.session.JpaUserSessionPersisterProviderFactory;
import org.keycloak.models.session.UserSessionPersisterProvider;

/**
 * Stands before the table of sessions: every session that ends is removed from it, and its clients can be read just before.
 *
 * A proxy of the interface rather than a subclass: constructors and methods differ between the versions that one jar serves.
 */
public class PublishingPersisterProviderFactory extends JpaUserSessionPersisterProviderFactory {
    @Override
    public UserSessionPersisterProvider create(KeycloakSession session) {
        UserSessionPersisterProvider own = super.create(session);
        Publisher publisher = Publisher.of(session);
        if (publisher == null) {
            return own;
        }
        return (UserSessionPersisterProvider) Proxy.newProxyInstance(PublishingPersisterProviderFactory.class.getClassLoader(),
                new Class<?>[] {UserSessionPersisterProvider.class}, new PublishingPersisterHandler(session, own, publisher));
    }

    @Override
    public int order() {
        return super.order() + 1;
    }
}
