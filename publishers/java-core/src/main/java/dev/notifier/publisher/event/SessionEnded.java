package dev.notifier.publisher.event;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;

/**
 * The end of a session for the clients of one issuer, as described in docs/event.md.
 *
 * @param session the session in the server's store; null if it cannot be looked up
 * @param idSource the text that the event's id is a digest of: the same for a repetition of this session end, another for the
 *     end of any other session, or of the same session at another issuer
 * @param clients the clients to notify, each with at least a `client_id`
 * @param reason null if unknown
 */
public record SessionEnded(SessionKey session, String idSource, String iss, String sub, String sid, List<ObjectNode> clients, Instant endedAt,
        String reason) {
    /** notifier's limit for one event. */
    static final int MAX_EVENT_BYTES = 128 * 1024;

    private static final int ID_BYTES = 16;

    /** Returns one event, or several if one would exceed notifier's limit. A repetition returns the same ids. */
    public List<OutgoingEvent> toEvents(Lane lane) {
        List<OutgoingEvent> events = new ArrayList<>();
        split(lane, clients, "", events);
        return events;
    }

    private void split(Lane lane, List<ObjectNode> part, String partName, List<OutgoingEvent> events) {
        String id = createId(partName);
        byte[] json = OutgoingEvent.toBytes(toJson(id, part));
        if (json.length <= MAX_EVENT_BYTES || part.size() == 1) {
            events.add(new OutgoingEvent(lane, id, session, json));
            return;
        }
        split(lane, part.subList(0, part.size() / 2), partName + '0', events);
        split(lane, part.subList(part.size() / 2, part.size()), partName + '1', events);
    }

    private ObjectNode toJson(String id, List<ObjectNode> part) {
        ObjectNode event = JsonNodeFactory.instance.objectNode().put("id", id).put("iss", iss).put("sub", sub).put("sid", sid);
        ArrayNode entries = event.putArray("clients");
        part.forEach(entries::add);
        event.put("ended_at", endedAt.toString());
        if (reason != null) {
            event.put("reason", reason);
        }
        return event;
    }

    /** The id is a digest because logs contain it, and must not contain a session's id. */
    private String createId(String partName) {
        try {
            byte[] digest = MessageDigest.getInstance("SHA-256").digest((idSource + '\n' + partName).getBytes(StandardCharsets.UTF_8));
            return HexFormat.of().formatHex(digest, 0, ID_BYTES);
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
