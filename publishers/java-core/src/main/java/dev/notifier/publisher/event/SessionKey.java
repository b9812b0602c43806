package dev.notifier.publisher.event;

/**
 * Identifies a session, or one client's part of it, in the identity server's store. The outbox stores the key with the event
 * and passes it to the server's look-up. Only the server interprets it.
 *
 * @param json a JSON object on one line
 */
public record SessionKey(String json) {
}
