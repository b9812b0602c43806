package dev.notifier.keycloak;

import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.keycloak.Config;
import org.keycloak.events.Event;
import org.keycloak.events.EventListenerProvider;
import org.keycloak.events.EventListenerProviderFactory;
import org.keycloak.events.admin.AdminEvent;
import org.keycloak.events.admin.OperationType;
import org.keycloak.events.admin.ResourceType;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.KeycloakSessionFactory;
import org.keycloak.models.RealmModel;
import org.keycloak.models.UserModel;

/** Notifies the clients of a user whom an administrator disables, or updates while disabled. Keycloak keeps the sessions. The listener must be enabled in the realm. */
public class DisabledUserListenerFactory implements EventListenerProviderFactory {
    private static final Pattern USER = Pattern.compile("users/([^/]+)");

    @Override
    public EventListenerProvider create(KeycloakSession session) {
        return new EventListenerProvider() {
            @Override
            public void onEvent(Event event) {
                // sign-outs are published when the session is deleted
            }

            @Override
            public void onEvent(AdminEvent event, boolean representation) {
                KeycloakPublisher publisher = KeycloakPublisher.of(session);
                if (publisher != null && event.getError() == null && event.getOperationType() == OperationType.UPDATE
                        && event.getResourceType() == ResourceType.USER) {
                    publisher.runGuarded("publishing a disabled user", () -> onUserUpdated(session, publisher, event));
                }
            }

            @Override
            public void close() {
                // nothing is open
            }
        };
    }

    private static void onUserUpdated(KeycloakSession session, KeycloakPublisher publisher, AdminEvent event) {
        Matcher path = USER.matcher(String.valueOf(event.getResourcePath()));
        RealmModel realm = session.realms().getRealm(event.getRealmId());
        if (realm == null || !path.matches()) {
            return;
        }
        UserModel user = session.users().getUserById(realm, path.group(1));
        if (user != null && !user.isEnabled()) {
            SessionEndSynchronization.register(session, publisher).onDisabledUserUpdate(SessionCriteria.ofUser(realm, user));
        }
    }

    @Override
    public void init(Config.Scope config) {
        // it has no settings
    }

    @Override
    public void postInit(KeycloakSessionFactory factory) {
        // nothing to prepare
    }

    @Override
    public void close() {
        // nothing is open
    }

    @Override
    public String getId() {
        return "notifier";
    }
}
