package dev.notifier.publisher.event;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

/**
 * An event that waits to be published: one line of an outbox file.
 *
 * @param id the event's id, which stays the same when the event is sent again
 * @param session the session to look up before the event is published; null if the event needs no look-up
 * @param json the event, as it is published
 */
public record OutgoingEvent(Lane lane, String id, SessionKey session, byte[] json) {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** AMQP carries the id as a short string. */
    private static final int MAX_ID_BYTES = 255;

    /** Returns the same event, to be published although its session lives. */
    public OutgoingEvent withoutLookup() {
        return new OutgoingEvent(lane, id, null, json);
    }

    /** Returns the line of the outbox file, with its line feed. */
    public byte[] toLine() {
        String key = session == null ? "" : ",\"session\":" + session.json();
        byte[] head = ("{\"lane\":\"" + lane.label() + '"' + key + ",\"event\":").getBytes(StandardCharsets.UTF_8);
        byte[] line = new byte[head.length + json.length + 2];
        System.arraycopy(head, 0, line, 0, head.length);
        System.arraycopy(json, 0, line, head.length, json.length);
        line[line.length - 2] = '}';
        line[line.length - 1] = '\n';
        return line;
    }

    /**
     * Parses a line of an outbox file.
     *
     * @throws IOException if the line is not a valid event
     */
    public static OutgoingEvent parse(String line) throws IOException {
        JsonNode document = JSON.readTree(line);
        JsonNode event = document == null ? null : document.get("event");
        if (event == null || !event.path("id").isTextual() || !event.path("iss").isTextual() || !event.path("clients").isArray()) {
            throw new IOException("it is not a valid event");
        }
        Lane lane = Lane.fromLabel(document.path("lane").asText());
        if (lane == null) {
            throw new IOException("it names no lane");
        }
        String id = event.get("id").textValue();
        if (id.isEmpty() || id.getBytes(StandardCharsets.UTF_8).length > MAX_ID_BYTES) {
            throw new IOException("its id cannot be published");
        }
        JsonNode session = document.path("session");
        return new OutgoingEvent(lane, id, session.isObject() ? new SessionKey(session.toString()) : null, toBytes(event));
    }

    static byte[] toBytes(JsonNode json) {
        try {
            return JSON.writeValueAsBytes(json);
        } catch (JsonProcessingException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
