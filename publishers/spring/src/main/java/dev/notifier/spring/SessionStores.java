package dev.notifier.spring;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Base64;

/**
 * The stores of this process.
 *
 * @param sessions null if each process has its sessions in memory
 * @param calls calls the stores from the browser's requests
 */
record SessionStores(SessionClientStore clients, SharedSessions sessions, BoundedCalls calls) {
    /** Returns the `sid` of a session, as the authorization server derives it: `/connect/logout` compares both. */
    static String toSid(String sessionId) {
        try {
            byte[] digest = MessageDigest.getInstance("SHA-256").digest(sessionId.getBytes(StandardCharsets.US_ASCII));
            return Base64.getUrlEncoder().withoutPadding().encodeToString(digest);
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    /** Returns the key of a session's rows. It reveals the id only where the database contains it anyway, and the sweep needs it. */
    String toKey(String sessionId) {
        return sessions == null ? toSid(sessionId) : sessionId;
    }
}
