package dev.notifier.keycloak;

import dev.notifier.keycloak.ClientSignOutRegistry.ClientSignOut;
import dev.notifier.publisher.event.Lane;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.Set;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.RealmModel;
import org.keycloak.models.UserModel;
import org.keycloak.models.UserSessionModel;
import org.keycloak.models.session.UserSessionPersisterProvider;

/** Reads sessions before Keycloak's persister deletes them. Errors of the plug-in do not reach Keycloak. */
final class PublishingPersisterHandler implements InvocationHandler {
    private static final Set<String> DELETING_ALL_OF_A_REALM = Set.of("removeUserSessions", "onRealmRemoved");

    private final KeycloakSession session;
    private final UserSessionPersisterProvider persister;
    private final KeycloakPublisher publisher;
    private SessionEndSynchronization current;

    PublishingPersisterHandler(KeycloakSession session, UserSessionPersisterProvider persister, KeycloakPublisher publisher) {
        this.session = session;
        this.persister = persister;
        this.publisher = publisher;
    }

    @Override
    public Object invoke(Object proxy, Method method, Object[] args) throws Throwable {
        publisher.runGuarded(method.getName(), () -> onCall(method.getName(), args));
        try {
            Object result = method.invoke(persister, args);
            if (DELETING_ALL_OF_A_REALM.contains(method.getName())) {
                publisher.runGuarded(method.getName(), () -> synchronization().onAllDeleted());
            }
            return result;
        } catch (InvocationTargetException failure) {
            throw failure.getCause();
        }
    }

    private void onCall(String method, Object[] args) {
        switch (method) {
            case "removeUserSession" -> synchronization().onSessionDeletion((String) args[0], (boolean) args[1]);
            case "removeClientSession" -> {
                if (publisher.clientSignOuts().contains(new ClientSignOut((String) args[0], (String) args[1], (boolean) args[2]))) {
                    synchronization().onClientSignOut((String) args[0], (String) args[1], (boolean) args[2]);
                }
            }
            case "createUserSession" -> {
                if ((boolean) args[1]) {
                    synchronization().onMovedOffline(((UserSessionModel) args[0]).getId());
                }
            }
            case "removeExpired" -> synchronization().onBulkDeletion(SessionCriteria.expired((RealmModel) args[0]), Lane.BULK, "session_expiration");
            case "removeUserSessions" -> synchronization().onBulkDeletion(SessionCriteria.ofRealm((RealmModel) args[0],
                    args.length == 1 ? null : (Boolean) args[1]), Lane.BULK, "terminated");
            case "onRealmRemoved" -> synchronization().onBulkDeletion(SessionCriteria.ofRealm((RealmModel) args[0], null), Lane.BULK, "terminated");
            case "onUserRemoved" -> synchronization().onBulkDeletion(SessionCriteria.ofUser((RealmModel) args[0], (UserModel) args[1]), Lane.EVENTS,
                    "terminated");
            default -> {
                // no session ends
            }
        }
    }

    /** Returns the synchronization of the current transaction. */
    private SessionEndSynchronization synchronization() {
        if (current == null || !current.belongsToCurrentTransaction()) {
            current = SessionEndSynchronization.register(session, publisher);
        }
        return current;
    }
}
