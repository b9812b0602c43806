package dev.notifier.keycloak;

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

/** Reads what is about to go before Keycloak deletes it. Nothing that goes wrong with that reaches Keycloak. */
final class PublishingPersisterHandler implements InvocationHandler {
    private static final Set<String> ALL_AT_ONCE = Set.of("removeUserSessions", "onRealmRemoved");

    private final KeycloakSession session;
    private final UserSessionPersisterProvider own;
    private final Publisher publisher;
    private SessionEndSynchronization current;

    PublishingPersisterHandler(KeycloakSession session, UserSessionPersisterProvider own, Publisher publisher) {
        this.session = session;
        this.own = own;
        this.publisher = publisher;
    }

    @Override
    public Object invoke(Object proxy, Method method, Object[] args) throws Throwable {
        publisher.guarded(method.getName(), () -> before(method.getName(), args));
        try {
            Object done = method.invoke(own, args);
            if (ALL_AT_ONCE.contains(method.getName())) {
                publisher.guarded(method.getName(), () -> events().late());
            }
            return done;
        } catch (InvocationTargetException failed) {
            throw failed.getCause();
        }
    }

    private void before(String method, Object[] args) {
        switch (method) {
            case "removeUserSession" -> events().ended((String) args[0], (boolean) args[1]);
            case "removeClientSession" -> {
                if (publisher.clientSignOuts().isOpen((String) args[0], (String) args[1], (boolean) args[2])) {
                    events().parted((String) args[0], (String) args[1], (boolean) args[2]);
                }
            }
            case "createUserSession" -> {
                if ((boolean) args[1]) {
                    events().wentOffline(((UserSessionModel) args[0]).getId());
                }
            }
            case "removeExpired" -> events().mass(SessionCriteria.expired((RealmModel) args[0]), Lane.BULK, "session_expiration");
            case "removeUserSessions" -> events().mass(SessionCriteria.ofRealm((RealmModel) args[0], args.length == 1 ? null : (Boolean) args[1]), Lane.BULK, "terminated");
            case "onRealmRemoved" -> events().mass(SessionCriteria.ofRealm((RealmModel) args[0], null), Lane.BULK, "terminated");
            case "onUserRemoved" -> events().mass(SessionCriteria.ofUser((RealmModel) args[0], (UserModel) args[1]), Lane.EVENTS, "terminated");
            default -> {
                // nothing ends
            }
        }
    }

    /** Those of the transaction that runs now. */
    private SessionEndSynchronization events() {
        if (current == null || !current.isOfThisTransaction()) {
            current = SessionEndSynchronization.enlisted(session, publisher);
        }
        return current;
    }
}
