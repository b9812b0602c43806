package dev.notifier.keycloak;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.keycloak.common.util.Time;
import org.keycloak.models.Constants;
import org.keycloak.models.RealmModel;
import org.keycloak.models.UserModel;

/**
 * Selects the sessions that a call to Keycloak's persister may delete. It selects at least those that Keycloak deletes.
 *
 * @param kinds online (false), offline (true), or both
 * @param conditions one for each kind: JPQL on the session `s`
 */
record SessionCriteria(RealmModel realm, List<Boolean> kinds, List<String> conditions, Map<String, Object> parameters) {
    /** The time from the expiry of a session until Keycloak deletes it. */
    private static final int GRACE_SECONDS = 180;

    /** Keycloak reads the clock later than the plug-in. */
    private static final int CLOCK_MARGIN_SECONDS = 60;

    /**
     * Selects all sessions of a realm.
     *
     * @param offline null for both kinds
     */
    static SessionCriteria ofRealm(RealmModel realm, Boolean offline) {
        List<Boolean> kinds = offline == null ? List.of(false, true) : List.of(offline);
        return new SessionCriteria(realm, kinds, kinds.stream().map(each -> "1 = 1").toList(), Map.of());
    }

    /** Selects all sessions of a user. */
    static SessionCriteria ofUser(RealmModel realm, UserModel user) {
        String condition = "s.userId = :user";
        return new SessionCriteria(realm, List.of(false, true), List.of(condition, condition), Map.of("user", user.getId()));
    }

    /** Returns these criteria for the sessions that started at or after a time in seconds. */
    SessionCriteria startedSince(int since) {
        Map<String, Object> withSince = new LinkedHashMap<>(parameters);
        withSince.put("since", since);
        return new SessionCriteria(realm, kinds, conditions.stream().map(each -> "(" + each + ") and s.createdOn >= :since").toList(), withSince);
    }

    /**
     * Selects expired sessions as this version of Keycloak does. Versions with a column for remember me delete by idle time and
     * lifetime, others by idle time alone.
     */
    static SessionCriteria expired(RealmModel realm) {
        int now = (int) (Time.currentTimeMillis() / 1000) + CLOCK_MARGIN_SECONDS - GRACE_SECONDS;
        int idle = positiveOr(realm.getSsoSessionIdleTimeout(), Constants.DEFAULT_SESSION_IDLE_TIMEOUT);
        int lifespan = positiveOr(realm.getSsoSessionMaxLifespan(), Constants.DEFAULT_SESSION_MAX_LIFESPAN);
        int rememberedIdle = Math.max(idle, realm.getSsoSessionIdleTimeoutRememberMe());
        int rememberedLifespan = Math.max(lifespan, realm.getSsoSessionMaxLifespanRememberMe());
        Map<String, Object> parameters = new LinkedHashMap<>();
        String online;
        if (SessionReader.hasRememberMeColumn()) {
            online = "((s.rememberMe is null or s.rememberMe = false) and (s.lastSessionRefresh < :idle or s.createdOn < :life)"
                    + " or s.rememberMe = true" + (realm.isRememberMe() ? " and (s.lastSessionRefresh < :rememberedIdle or s.createdOn < :rememberedLife))" : ")");
            parameters.put("life", now - lifespan);
            if (realm.isRememberMe()) {
                parameters.put("rememberedIdle", now - rememberedIdle);
                parameters.put("rememberedLife", now - rememberedLifespan);
            }
        } else {
            online = "s.lastSessionRefresh < :idle";
            idle = realm.isRememberMe() ? rememberedIdle : idle;
        }
        parameters.put("idle", now - idle);
        String offline = "(s.lastSessionRefresh < :offlineIdle or s.createdOn < :offlineLife)";
        parameters.put("offlineIdle", now - positiveOr(realm.getOfflineSessionIdleTimeout(), Constants.DEFAULT_OFFLINE_SESSION_IDLE_TIMEOUT));
        parameters.put("offlineLife", SessionReader.hasRememberMeColumn() && realm.isOfflineSessionMaxLifespanEnabled()
                ? now - positiveOr(realm.getOfflineSessionMaxLifespan(), Constants.DEFAULT_OFFLINE_SESSION_MAX_LIFESPAN) : 0);
        return new SessionCriteria(realm, List.of(false, true), List.of(online, offline), parameters);
    }

    private static int positiveOr(int value, int defaultValue) {
        return value > 0 ? value : defaultValue;
    }
}
