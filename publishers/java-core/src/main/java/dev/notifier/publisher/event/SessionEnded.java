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
 * A session that has ended, as notifier takes it.
 *
 * @param reason null where it is not known
 * @param salt distinguishes this ending from others of the same session; empty for the end of the session itself
 */
public record SessionEnded(SessionKey session, String iss, String sub, List<ObjectNode> clients, Instant endedAt, String reason, String salt) {
    /** notifier takes 128 KiB. */
    static final int MOST_BYTES = 128 * 1024;

    private static final int ID_BYTES = 16;

    /** The events of this ending: one, or several if one would be too large. Each has an id of this ending alone, the same each time. */
    public List<OutgoingEvent> events(Lane lane) {
        List<OutgoingEvent> found = new ArrayList<>();
        split(lane, clients, "", found);
        return found;
    }

    private void split(Lane lane, List<ObjectNode> part, String name, List<OutgoingEvent> found) {
        String id = id(name);
        byte[] event = OutgoingEvent.bytes(event(id, part));
        if (event.length <= MOST_BYTES || part.size() == 1) {
            found.add(new OutgoingEvent(lane, id, session, event));
            return;
        }
        split(lane, part.subList(0, part.size() / 2), name + '0', found);
        split(lane, part.subList(part.size() / 2, part.size()), name + '1', found);
    }

    private ObjectNode event(String id, List<ObjectNode> part) {
        ObjectNode event = JsonNodeFactory.instance.objectNode().put("id", id).put("iss", iss).put("sub", sub).put("sid", session.id());
        ArrayNode named = event.putArray("clients");
        part.forEach(named::add);
        event.put("ended_at", endedAt.toString());
        if (reason != null) {
            event.put("reason", reason);
        }
        return event;
    }

    /** A digest: the id stands in logs, and a session's id does not belong there. */
    private String id(String part) {
        try {
            byte[] digest = MessageDigest.getInstance("SHA-256")
                    .digest((session.text() + '\n' + iss + '\n' + salt + '\n' + part).getBytes(StandardCharsets.UTF_8));
            return HexFormat.of().formatHex(digest, 0, ID_BYTES);
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
