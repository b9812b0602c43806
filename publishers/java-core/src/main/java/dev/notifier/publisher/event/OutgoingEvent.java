package dev.notifier.publisher.event;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/**
 * One event on its way: a line of a file of the outbox.
 *
 * @param id the event's own, given once
 * @param session how to look up whether it has happened; null where it cannot be looked up
 * @param event the event's JSON, as it is published
 */
public record OutgoingEvent(Lane lane, String id, SessionKey session, byte[] event) {
    private static final ObjectMapper JSON = new ObjectMapper();

    private static final byte[] EVENT = ",\"event\":".getBytes(StandardCharsets.UTF_8);
    private static final byte[] END = "}\n".getBytes(StandardCharsets.UTF_8);

    /** The longest id that AMQP carries. */
    private static final int LONGEST_ID = 255;

    /** The same, but published without a look at the session: it lives on. */
    public OutgoingEvent notToBeLookedUp() {
        return new OutgoingEvent(lane, id, null, event);
    }

    /** The line, with its end. */
    public byte[] line() {
        ObjectNode line = JSON.createObjectNode().put("lane", lane.word());
        if (session != null) {
            session.writeTo(line.putObject("session"));
        }
        byte[] head = bytes(line);
        return ByteBuffer.allocate(head.length - 1 + EVENT.length + event.length + END.length)
                .put(head, 0, head.length - 1).put(EVENT).put(event).put(END).array();
    }

    /**
     * Parse a line of an outbox file.
     *
     * @throws IOException if it is not a valid event
     */
    public static OutgoingEvent of(String line) throws IOException {
        JsonNode read = JSON.readTree(line);
        JsonNode event = read == null ? null : read.get("event");
        if (event == null || !event.path("id").isTextual() || !event.path("iss").isTextual() || !event.path("clients").isArray()) {
            throw new IOException("it is not a valid event");
        }
        Lane lane = Lane.of(read.path("lane").asText());
        String id = event.get("id").textValue();
        if (lane == null || id.isEmpty() || id.getBytes(StandardCharsets.UTF_8).length > LONGEST_ID) {
            throw new IOException(lane == null ? "it names no lane" : "its id cannot be published");
        }
        return new OutgoingEvent(lane, id, SessionKey.of(read.get("session")), bytes(event));
    }

    static byte[] bytes(JsonNode json) {
        try {
            return JSON.writeValueAsBytes(json);
        } catch (JsonProcessingException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
