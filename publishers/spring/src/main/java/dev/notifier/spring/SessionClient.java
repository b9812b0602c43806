package dev.notifier.spring;

/**
 * A client that has received a code in a session: a row of `notifier_session_client`.
 *
 * @param sessionKey identifies the current session: its id where sessions are shared, otherwise a digest of it
 * @param sid the `sid` of the client's ID token, derived from the id of the session when the code was issued
 * @param iss the issuer of the request that issued the code, and from the ID token on the issuer as the client knows it
 * @param sub the user's name, and from the ID token on the subject as the client knows it
 * @param createdAt milliseconds since 1970
 * @param node the process that has the session in memory; {@link #SHARED} where sessions are shared
 */
record SessionClient(String sessionKey, String sid, String clientId, String iss, String sub, long createdAt, String node) {
    static final String SHARED = "shared";

    SessionClient withSession(String newKey) {
        return new SessionClient(newKey, sid, clientId, iss, sub, createdAt, node);
    }

    SessionClient withToken(String newIss, String newSub) {
        return new SessionClient(sessionKey, sid, clientId, newIss, newSub, createdAt, node);
    }
}
