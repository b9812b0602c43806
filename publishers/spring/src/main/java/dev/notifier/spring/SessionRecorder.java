package dev.notifier.spring;

import jakarta.servlet.http.HttpSession;
import dev.notifier.publisher.monitoring.LogThrottle;
import java.security.Principal;
import java.time.Duration;
import java.util.Comparator;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.function.IntConsumer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.oauth2.core.OAuth2Error;
import org.springframework.security.oauth2.core.OAuth2ErrorCodes;
import org.springframework.security.oauth2.core.endpoint.OAuth2AuthorizationRequest;
import org.springframework.security.oauth2.server.authorization.OAuth2Authorization;
import org.springframework.security.oauth2.server.authorization.context.AuthorizationServerContextHolder;
import org.springframework.web.context.request.RequestContextHolder;
import org.springframework.web.context.request.ServletRequestAttributes;

/**
 * Records which client takes part in which session.
 *
 * A code is issued in the browser's request, which has the session, and redeemed in a request of the client, which has none. Therefore
 * the code's authorization carries the session from the first to the second. No sign-in fails because of the database: a row that is not
 * written when the code is issued is written when the code is redeemed.
 */
final class SessionRecorder {
    private static final Logger LOG = LoggerFactory.getLogger(SessionRecorder.class);

    /** Attributes of an authorization. */
    static final String SID = "notifier.sid";
    private static final String SESSION_KEY = "notifier.session";
    private static final String ISSUER = "notifier.iss";
    private static final String NODE = "notifier.node";
    private static final String RECORDED_IN = "notifier.recorded_in";
    private static final String OFFLINE_ACCESS = "offline_access";

    private final SessionStores stores;
    private final SessionClientStore store;
    private final SessionEndPublisher ends;
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));
    private final boolean revokesRefreshTokens;
    private final IntConsumer onLost;

    /** @param onLost counts clients that will not be notified */
    SessionRecorder(SessionStores stores, SessionEndPublisher ends, boolean revokesRefreshTokens, IntConsumer onLost) {
        this.stores = stores;
        this.store = stores.clients();
        this.ends = ends;
        this.revokesRefreshTokens = revokesRefreshTokens;
        this.onLost = onLost;
    }

    /** Records the client to which a code is issued, and returns the authorization with the session of the current request. */
    OAuth2Authorization recordCode(OAuth2Authorization authorization) {
        try {
            HttpSession session = ((ServletRequestAttributes) RequestContextHolder.currentRequestAttributes()).getRequest().getSession(false);
            return session == null ? authorization : addSession(authorization, session);
        } catch (RuntimeException failure) { // the sign-in continues
            reportLost(authorization.getRegisteredClientId(), BoundedCalls.name(failure));
            return authorization;
        }
    }

    private OAuth2Authorization addSession(OAuth2Authorization authorization, HttpSession session) {
        String sid = SessionStores.toSid(session.getId());
        String key = stores.toKey(session.getId());
        String iss = AuthorizationServerContextHolder.getContext().getIssuer();
        if (stores.sessions() == null) {
            session.setAttribute(SessionEndPublisher.HAS_CLIENTS, true);
        }
        Principal user = authorization.getAttribute(Principal.class.getName());
        SessionClient client = new SessionClient(key, sid, clientId(authorization), iss, user == null ? authorization.getPrincipalName() : user.getName(),
                System.currentTimeMillis(), store.node());
        boolean isRecorded = stores.calls().tryRun(() -> ends.add(client));
        OAuth2Authorization.Builder builder = OAuth2Authorization.from(authorization).attribute(SID, sid).attribute(SESSION_KEY, key).attribute(ISSUER, iss)
                .attribute(NODE, store.node());
        return (isRecorded ? builder.attribute(RECORDED_IN, store.id()) : builder).build();
    }

    private static String clientId(OAuth2Authorization authorization) {
        return authorization.<OAuth2AuthorizationRequest>getAttribute(OAuth2AuthorizationRequest.class.getName()).getClientId();
    }

    /**
     * Records issuer and subject as the client knows them. The client may reach the server by another host than the browser.
     *
     * @throws OAuth2AuthenticationException if the session has ended since the code was issued
     */
    void recordIdToken(OAuth2Authorization authorization, String clientId, String iss, String sub) {
        String recordedIn = authorization.getAttribute(RECORDED_IN);
        if (recordedIn != null && !recordedIn.equals(store.id())) {
            return; // in the memory of the process that has the session
        }
        SessionClient client = new SessionClient(authorization.getAttribute(SESSION_KEY), authorization.getAttribute(SID), clientId, iss, sub,
                System.currentTimeMillis(), authorization.getAttribute(NODE));
        String codeIssuer = authorization.getAttribute(ISSUER);
        CompletableFuture<Boolean> isLiving = stores.calls().start(() -> updateOrAdd(client, codeIssuer, recordedIn != null)).whenComplete((living, failure) -> {
            if (failure != null && recordedIn == null) {
                reportLost(clientId, BoundedCalls.name(failure));
            }
        });
        if (stores.calls().await(isLiving).equals(Optional.of(false))) {
            throw new OAuth2AuthenticationException(new OAuth2Error(OAuth2ErrorCodes.INVALID_GRANT, "The session of this code has ended.", null));
        }
    }

    /** Returns false if the session has ended. */
    private boolean updateOrAdd(SessionClient client, String codeIssuer, boolean isRecorded) {
        Optional<SessionClient> row = store.find(client.sid(), client.clientId()).stream()
                .filter(each -> each.iss().equals(codeIssuer) || each.iss().equals(client.iss())) // an earlier ID token may have changed it
                .min(Comparator.comparing(each -> !each.iss().equals(codeIssuer)));
        if (row.isEmpty() && isRecorded) {
            return false; // deleted when the session ended
        }
        if (ends.isEnded(client.sessionKey()) && ends.isEnded(row.orElse(client).sessionKey())) {
            return false;
        }
        if (row.isEmpty()) {
            ends.add(client); // unless a late call of recordCode adds it now
        }
        return store.update(row.orElse(client), client.iss(), client.sub());
    }

    private void reportLost(String client, String failure) {
        onLost.accept(1);
        if (throttle.tryAcquire(failure)) {
            LOG.error("notifier: a session of client {} is LOST: it is not recorded, and its end will not be published: {}", client, failure);
        }
    }

    /**
     * Returns whether the refresh token of an authorization belongs to a session that has ended, unless it was granted for longer.
     *
     * Nothing is done at the end of the session but to delete its rows: so the end is as fast as before, no crash comes in between, and a
     * token that is rotated at the same moment is found.
     *
     * @throws IllegalStateException if the database does not answer: an ended session must not look like a living one
     */
    boolean isRefreshTokenEnded(OAuth2Authorization authorization) {
        if (!revokesRefreshTokens || !store.id().equals(authorization.getAttribute(RECORDED_IN)) || authorization.getAuthorizedScopes().contains(OFFLINE_ACCESS)) {
            return false;
        }
        return stores.calls().await(stores.calls().start(() -> store.find(authorization.getAttribute(SID), clientId(authorization)).stream()
                .allMatch(row -> ends.isEnded(row.sessionKey())))).orElseThrow(() -> new IllegalStateException("notifier: the session of a refresh token cannot be read now"));
    }
}
