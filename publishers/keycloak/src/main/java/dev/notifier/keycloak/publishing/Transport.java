package dev.notifier.keycloak.publishing;

import dev.notifier.keycloak.event.Ending;
import java.util.List;

/** A way to notifier. Used by one thread. */
public interface Transport extends AutoCloseable {
    /**
     * Publish events in this order, and wait until each is durable or is not.
     *
     * @param fates receives the result of each event by its place in the list; the result of the others is unknown
     * @throws Trouble if not all of them are settled
     */
    void publish(List<Ending> endings, Fates fates) throws Trouble, InterruptedException;

    /** Connect, so that mistakes are seen before the first event. */
    void connect() throws Trouble, InterruptedException;

    /** Drop the connection at once, whatever the other side does. The next use makes another. */
    void drop();

    /** Nothing more is published. */
    @Override
    void close();

    /** The result of an event. */
    interface Fates {
        /** It is durable. */
        void confirmed(int place);

        /** It can never be accepted. */
        void refused(int place, String why);

        /** Another server answered in place of notifier. The transport throws Trouble afterwards. */
        default void intercepted(int place, String why) {
        }
    }
}
