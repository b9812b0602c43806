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

/** Tells the clients of a user whom an administrator disables. Keycloak keeps the sessions. It has to be switched on in the realm. */
public class DisabledUserListenerFactory implements EventListenerProviderFactory {
    private static final Pattern USER = Pattern.compile("users/([^/]+)");

    @Override
    public EventListenerProvider create(KeycloakSession session) {
        return new EventListenerProvider() {
            @Override
            public void onEvent(Event event) {
                // sign-outs are seen where the session is deleted
            }

            @Override
            public void onEvent(AdminEvent event, boolean representation) {
                Publisher publisher = Publisher.of(session);
                if (publisher != null && event.getError() == null && event.getOperationType() == OperationType.UPDATE
                        && event.getResourceType() == ResourceType.USER) {
                    publisher.guarded("disabling a user", () -> updated(session, publisher, event));
                }
            }

            @Override
            public void close() {
                // nothing is open
            }
        };
    }

    private static void updated(KeycloakSession session, Publisher publisher, AdminEvent event) {
        Matcher user = USER.matcher(String.valueOf(event.getResourcePath()));
        RealmModel realm = session.realms().getRealm(event.getRealmId());
        if (realm == null || !user.matches()) {
            return;
        }
        UserModel found = session.users().getUserById(realm, user.group(1));
        if (found != null && !found.isEnabled()) {
            SessionEndSynchronization.enlisted(session, publisher).disabled(SessionCriteria.ofUser(realm, found));
        }
    }

    @Override
    public void init(Config.Scope config) {
        // the settings are the publisher's
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
