package dev.notifier.spring;

import java.util.List;

/** The sessions that all processes share. Without it, each process has its sessions in memory. */
@FunctionalInterface
interface SharedSessions {
    /** The attribute that `SpringSessionBackedSessionRegistry` sets when a session is expired by `expireNow()`. */
    String EXPIRED_ATTRIBUTE = "org.springframework.session.security.SpringSessionBackedSessionInformation.EXPIRED";

    /** Returns whether the session does not exist any more, has expired or was expired by an administrator. */
    boolean isEnded(String sessionId);

    /** Returns those of these sessions that may have ended, by one query where the store has one. */
    default List<String> findEnded(List<String> sessionIds) {
        return sessionIds.stream().filter(this::isEnded).toList();
    }
}
