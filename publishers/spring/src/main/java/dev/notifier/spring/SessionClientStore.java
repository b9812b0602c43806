package dev.notifier.spring;

import java.util.Collection;
import java.util.List;
import java.util.Optional;

/** Stores which clients take part in which session. A client has one row for each `sid` and issuer. */
interface SessionClientStore {
    /** Returns a name that is the same for all processes that share the rows. */
    String id();

    /** Returns the {@link SessionClient#node} of the sessions of this process. */
    String node();

    /** Adds a row. If the client has one, only its session is updated. */
    void add(SessionClient client);

    Optional<SessionClient> find(String sid, String clientId, String iss);

    /** Sets the subject as the client knows it. */
    void updateSubject(SessionClient client, String sub);

    /** Moves the rows of a session whose id has changed. */
    void move(String fromKey, String toKey);

    /** Returns the rows of a session, ordered by `sid`, issuer and client. */
    List<SessionClient> findBySession(String sessionKey);

    /** Deletes exactly these rows. */
    void delete(Collection<SessionClient> clients);

    /** Returns a page of the sessions after this key that may have ended, in the order of their keys; an empty list at the end. */
    List<String> findSessionsAfter(String sessionKey);

    /** Reports that this process is alive. */
    default void renewNode() {
        // only where rows outlive their process
    }

    /** Returns sessions in the memory of processes that have not been alive since this time. */
    default List<String> findSessionsOfEndedNodes(long aliveSince) {
        return List.of();
    }

    /** Reports that this process ends. */
    default void removeNode() {
        // only where rows outlive their process
    }

    /**
     * Checks that the store can be used.
     *
     * @throws NotifierConfigurationException if a table is missing
     */
    default void verify() {
        // the memory has no tables
    }
}
