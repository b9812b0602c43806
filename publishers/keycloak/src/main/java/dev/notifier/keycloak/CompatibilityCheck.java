package dev.notifier.keycloak;

import dev.notifier.publisher.settings.InvalidSettingsException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jboss.logging.Logger;
import org.keycloak.Config;
import org.keycloak.common.Version;
import org.keycloak.common.util.MultiSiteUtils;
import org.keycloak.models.AuthenticatedClientSessionModel;
import org.keycloak.models.KeycloakSessionFactory;
import org.keycloak.models.UserSessionModel;
import org.keycloak.models.session.UserSessionPersisterProvider;
import org.keycloak.protocol.LoginProtocol;
import org.keycloak.protocol.oidc.OIDCLoginProtocol;
import org.keycloak.provider.ProviderFactory;

/** Checks whether this version of Keycloak has the internal classes that the plug-in uses. */
final class CompatibilityCheck {
    private static final Logger LOG = Logger.getLogger("dev.notifier.keycloak.Compatibility");
    private static final List<String> PERSISTER_METHODS = List.of("removeUserSession", "removeClientSession", "createUserSession", "removeExpired", "removeUserSessions",
            "onUserRemoved", "onRealmRemoved");
    private static final List<String> SESSION_FIELDS = List.of("userSessionId", "realmId", "userId", "createdOn", "lastSessionRefresh", "offline");
    private static final List<String> CLIENT_FIELDS = List.of("userSessionId", "clientId", "clientStorageProvider", "externalClientId", "timestamp", "offline", "data");

    private CompatibilityCheck() {
    }

    /** @throws InvalidSettingsException if a class, method or field is missing */
    static void requireSupportedVersion() {
        List<String> missing = new ArrayList<>();
        try {
            PERSISTER_METHODS.stream().filter(name -> Arrays.stream(UserSessionPersisterProvider.class.getMethods()).noneMatch(each -> each.getName().equals(name)))
                    .forEach(name -> missing.add("UserSessionPersisterProvider." + name));
            OIDCLoginProtocol.class.getMethod("backchannelLogout", UserSessionModel.class, AuthenticatedClientSessionModel.class);
            addMissingFields("org.keycloak.models.jpa.session.PersistentUserSessionEntity", SESSION_FIELDS, missing);
            addMissingFields("org.keycloak.models.jpa.session.PersistentClientSessionEntity", CLIENT_FIELDS, missing);
        } catch (ReflectiveOperationException | LinkageError absent) {
            missing.add(absent.toString());
        }
        if (!missing.isEmpty()) {
            throw new InvalidSettingsException(List.of("Keycloak " + Version.VERSION + " is not supported, because it lacks " + String.join(", ", missing)
                    + ": remove the plug-in from providers/, and see its README for the supported versions"));
        }
    }

    private static void addMissingFields(String entity, List<String> names, List<String> missing) throws ClassNotFoundException {
        List<String> fields = Arrays.stream(Class.forName(entity).getDeclaredFields()).map(java.lang.reflect.Field::getName).toList();
        names.stream().filter(name -> !fields.contains(name)).forEach(name -> missing.add(entity + "." + name));
    }

    /**
     * Refuses a start if another plug-in has replaced a provider of this one.
     *
     * @throws InvalidSettingsException if session ends would not be published
     */
    static void requireOwnProviders(KeycloakSessionFactory factory) {
        ProviderFactory<?> persister = factory.getProviderFactory(UserSessionPersisterProvider.class);
        if (!(persister instanceof PublishingPersisterProviderFactory)) {
            throw new InvalidSettingsException(List.of("it does not stand before the table of sessions, since " + (persister == null ? "nothing" : persister.getClass().getName())
                    + " does: take that out of providers/, or see --spi-user-session-persister--provider"));
        }
        ProviderFactory<?> protocol = factory.getProviderFactory(LoginProtocol.class, OIDCLoginProtocol.LOGIN_PROTOCOL);
        if (!(protocol instanceof PublishingLoginProtocolFactory)) {
            LOG.errorf("notifier: Keycloak continues to post to clients, and a withdrawn consent is not published, because %s has replaced its OpenID Connect",
                    protocol == null ? "nothing" : protocol.getClass().getName());
        }
    }

    /** Returns whether Keycloak stores online sessions in the database. Otherwise only some session ends can be published. */
    static boolean areSessionsStored() {
        return MultiSiteUtils.isPersistentSessionsEnabled();
    }

    /** Logs settings of Keycloak with which some session ends are not published. */
    static void warnOfLimitations() {
        if (Config.scope("userSessions", "infinispan").getBoolean("useBatches", false)) {
            LOG.warn("notifier: with spi-user-sessions--infinispan--use-batches a first sign-in with offline_access may be taken for the end of its session. Switch it off");
        }
        if (!areSessionsStored()) {
            LOG.warn("notifier: the feature persistent-user-sessions is off: only clients with a back-channel logout URL are notified of sign-outs, "
                    + "and no client of logout-all, deleted users and expired sessions. Switch the feature on");
        }
    }
}
