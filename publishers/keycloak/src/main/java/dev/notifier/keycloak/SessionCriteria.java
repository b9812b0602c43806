package dev.notifier.keycloak;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.keycloak.common.util.Time;
import org.keycloak.models.Constants;
import org.keycloak.models.RealmModel;
import org.keycloak.models.UserModel;

/**
 * The sessions that a call may delete, as a condition on the rows `s`: at least the sessions that Keycloak deletes.
 *
 * @param kinds online (false), offline (true), or both
 * @param conditions of each kind, in this order
 */
record SessionCriteria(RealmModel realm, List<Boolean> kinds, List<String> conditions, Map<String, Object> parameters) {
    /** Keycloak's own time of grace. */
    private static final int GRACE = 180;

    /** Keycloak looks at the clock after us. */
    private static final int MARGIN = 60;

    /** All sessions of a realm. Null: of both kinds. */
    static SessionCriteria ofRealm(RealmModel realm, Boolean offline) {
        List<Boolean> kinds = offline == null ? List.of(false, true) : List.of(offline);
        return new SessionCriteria(realm, kinds, kinds.stream().map(each -> "1 = 1").toList(), Map.of());
    }

    /** All sessions of a user. */
    static SessionCriteria ofUser(RealmModel realm, UserModel user) {
        String condition = "s.userId = :user";
        return new SessionCriteria(realm, List.of(false, true), List.of(condition, condition), Map.of("user", user.getId()));
    }

    /** The candidates that began at or after a time in seconds. */
    SessionCriteria thatBeganSince(int since) {
        Map<String, Object> more = new LinkedHashMap<>(parameters);
        more.put("since", since);
        return new SessionCriteria(realm, kinds, conditions.stream().map(each -> "(" + each + ") and s.createdOn >= :since").toList(), more);
    }

    /** Those that have run out, as the version of Keycloak decides it: with a column for remember me by idle time and by lifetime, else by idle time alone. */
    static SessionCriteria expired(RealmModel realm) {
        int now = (int) (Time.currentTimeMillis() / 1000) + MARGIN - GRACE;
        int idle = positive(realm.getSsoSessionIdleTimeout(), Constants.DEFAULT_SESSION_IDLE_TIMEOUT);
        int life = positive(realm.getSsoSessionMaxLifespan(), Constants.DEFAULT_SESSION_MAX_LIFESPAN);
        int rememberedIdle = Math.max(idle, realm.getSsoSessionIdleTimeoutRememberMe());
        int rememberedLife = Math.max(life, realm.getSsoSessionMaxLifespanRememberMe());
        Map<String, Object> parameters = new LinkedHashMap<>();
        String online;
        if (SessionTable.hasRememberMe()) {
            online = "((s.rememberMe is null or s.rememberMe = false) and (s.lastSessionRefresh < :idle or s.createdOn < :life)"
                    + " or s.rememberMe = true" + (realm.isRememberMe() ? " and (s.lastSessionRefresh < :rememberedIdle or s.createdOn < :rememberedLife))" : ")");
            parameters.put("life", now - life);
            if (realm.isRememberMe()) {
                parameters.put("rememberedIdle", now - rememberedIdle);
                parameters.put("rememberedLife", now - rememberedLife);
            }
        } else {
            online = "s.lastSessionRefresh < :idle";
            idle = realm.isRememberMe() ? rememberedIdle : idle;
        }
        parameters.put("idle", now - idle);
        String offline = "(s.lastSessionRefresh < :offlineIdle or s.createdOn < :offlineLife)";
        parameters.put("offlineIdle", now - positive(realm.getOfflineSessionIdleTimeout(), Constants.DEFAULT_OFFLINE_SESSION_IDLE_TIMEOUT));
        parameters.put("offlineLife", SessionTable.hasRememberMe() && realm.isOfflineSessionMaxLifespanEnabled()
                ? now - positive(realm.getOfflineSessionMaxLifespan(), Constants.DEFAULT_OFFLINE_SESSION_MAX_LIFESPAN) : 0);
        return new SessionCriteria(realm, List.of(false, true), List.of(online, offline), parameters);
    }

    private static int positive(int set, int otherwise) {
        return set > 0 ? set : otherwise;
    }
}
