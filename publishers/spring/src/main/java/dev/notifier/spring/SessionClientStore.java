package dev.notifier.spring;

import java.util.Collection;
import java.util.List;
import java.util.Map;

/** Stores which clients take part in which session. A client has one row for each `sid` and issuer. */
interface SessionClientStore {
    /** Sorts before each key of a session. Oracle compares nothing with an empty text. */
    String FIRST_KEY = " ";

    /** Returns a name that is the same for all processes that share the rows. */
    String id();

    /** Returns the {@link SessionClient#node} of the sessions of this process. */
    String node();

    /** Adds a row unless the client has one, whose session may have got another id since the request of this code began. */
    void add(SessionClient client);

    /** Returns the rows of a client, one for each issuer. */
    List<SessionClient> find(String sid, String clientId);

    /** Sets issuer and subject as the client knows them. Returns false if the row does not exist any more. */
    boolean update(SessionClient client, String iss, String sub);

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

    /** Returns when each process has reported that it is alive, in milliseconds since 1970 of its own clock. */
    default Map<String, Long> findNodes() {
        return Map.of();
    }

    /** Returns a page of the sessions after this key that were in the memory of removed processes, in the order of their keys; an empty list at the end. */
    default List<String> findSessionsOfEndedNodes(String sessionKey) {
        return List.of();
    }

    /** Reports that a process has ended. */
    default void removeNode(String node) {
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
