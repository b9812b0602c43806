package dev.notifier.publisher.publishing;

import dev.notifier.publisher.event.OutgoingEvent;
import java.util.List;

/** A way to notifier. Used by one thread. */
public interface Transport extends AutoCloseable {
    /**
     * Publish events in this order, and wait until each is durable or is not.
     *
     * @param fates receives the result of each event by its place in the list; the result of the others is unknown
     * @throws Trouble if not all of them are settled
     */
    void publish(List<OutgoingEvent> events, ResultListener results) throws PublishException, InterruptedException;

    /** Connect, so that mistakes are seen before the first event. */
    void connect() throws PublishException, InterruptedException;

    /** Drop the connection at once, whatever the other side does. The next use makes another. */
    void drop();

    /** Nothing more is published. */
    @Override
    void close();

    /** The result of an event. */
    interface ResultListener {
        /** It is durable. */
        void confirmed(int place);

        /** It can never be accepted. */
        void refused(int place, String why);

        /** Another server answered in place of notifier. The transport throws Trouble afterwards. */
        default void intercepted(int place, String why) {
        }
    }
}
