package dev.notifier.publisher.publishing;

import dev.notifier.publisher.event.OutgoingEvent;
import java.util.List;

/** Sends the events of one lane to the broker or to notifier's API. Only the lane's thread calls it. */
public interface Transport extends AutoCloseable {
    /**
     * Sends events in this order. Returns when the results of all are known.
     *
     * @param results receives the result of each event by its index in the list
     * @throws PublishException if the result of an event is unknown; such events are sent again
     */
    void publish(List<OutgoingEvent> events, ResultListener results) throws PublishException, InterruptedException;

    /** Connects, so that wrong settings are reported before the first event. */
    void connect() throws PublishException, InterruptedException;

    /** Drops the connection without waiting for the server. The next call opens another. */
    void drop();

    /** Closes the connection for good. */
    @Override
    void close();

    /** Receives the results of events, on any thread. */
    interface ResultListener {
        /** The event is durable. */
        void onConfirmed(int index);

        /** The event can never be accepted. */
        void onRefused(int index, String why);

        /** The event is not permitted now. Other events may be: whoever chooses the issuer of one must not delay the others. */
        default void onForbidden(int index, String why) {
        }

        /** Another server answered in place of notifier. The transport throws an exception afterwards. */
        default void onIntercepted(int index, String why) {
        }
    }
}
