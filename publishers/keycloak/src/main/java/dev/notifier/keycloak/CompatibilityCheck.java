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

/** Whether this Keycloak is built as we need it: it is its inside that we use. */
final class CompatibilityCheck {
    private static final Logger LOG = Logger.getLogger(CompatibilityCheck.class);
    private static final List<String> HOOKS = List.of("removeUserSession", "removeClientSession", "createUserSession", "removeExpired", "removeUserSessions",
            "onUserRemoved", "onRealmRemoved");
    private static final List<String> ROW = List.of("userSessionId", "realmId", "userId", "createdOn", "lastSessionRefresh", "offline");
    private static final List<String> CLIENT_ROW = List.of("userSessionId", "clientId", "clientStorageProvider", "externalClientId", "timestamp", "offline", "data");

    private CompatibilityCheck() {
    }

    /** @throws WrongSettings if something is missing */
    static void check() {
        List<String> missing = new ArrayList<>();
        try {
            HOOKS.stream().filter(name -> Arrays.stream(UserSessionPersisterProvider.class.getMethods()).noneMatch(each -> each.getName().equals(name)))
                    .forEach(name -> missing.add("UserSessionPersisterProvider." + name));
            OIDCLoginProtocol.class.getMethod("backchannelLogout", UserSessionModel.class, AuthenticatedClientSessionModel.class);
            fields("org.keycloak.models.jpa.session.PersistentUserSessionEntity", ROW, missing);
            fields("org.keycloak.models.jpa.session.PersistentClientSessionEntity", CLIENT_ROW, missing);
        } catch (ReflectiveOperationException | LinkageError gone) {
            missing.add(gone.toString());
        }
        if (!missing.isEmpty()) {
            throw new InvalidSettingsException(List.of("Keycloak " + Version.VERSION + " is not supported, because it lacks " + String.join(", ", missing)
                    + ": remove the plug-in from providers/, and see its README for the supported versions"));
        }
    }

    private static void fields(String entity, List<String> names, List<String> missing) throws ClassNotFoundException {
        List<String> there = Arrays.stream(Class.forName(entity).getDeclaredFields()).map(java.lang.reflect.Field::getName).toList();
        names.stream().filter(name -> !there.contains(name)).forEach(name -> missing.add(entity + "." + name));
    }

    /**
     * Refuse a start if another plug-in has replaced a provider of this one.
     *
     * @throws WrongSettings if endings would be missed
     */
    static void checkPlace(KeycloakSessionFactory factory) {
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

    /** Whether sessions are in the database. Otherwise only some endings can be published. */
    static boolean sessionsAreStored() {
        return MultiSiteUtils.isPersistentSessionsEnabled();
    }

    /** What works less well than it could. */
    static void warn() {
        if (Config.scope("userSessions", "infinispan").getBoolean("useBatches", false)) {
            LOG.warn("notifier: with spi-user-sessions--infinispan--use-batches a first sign-in with offline_access may be taken for the end of its session. Switch it off");
        }
        if (!sessionsAreStored()) {
            LOG.warn("notifier: the feature persistent-user-sessions is off: only clients with a back-channel logout URL are notified of sign-outs, "
                    + "and no client of logout-all, deleted users and expired sessions. Switch the feature on");
        }
    }
}
