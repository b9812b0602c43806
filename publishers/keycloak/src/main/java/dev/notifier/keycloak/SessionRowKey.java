package dev.notifier.keycloak;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.notifier.publisher.event.SessionKey;

/**
 * The row of a session in Keycloak's table, or of one client in it. The outbox stores it as a {@link SessionKey}.
 *
 * @param id the session's id, which an online and an offline session may share
 * @param createdOn when the session began, in seconds: an id may be used again after the session's end
 * @param client Keycloak's internal id of the one client that is signed out; null for the whole session
 */
record SessionRowKey(String id, int createdOn, boolean offline, String client) {
    private static final ObjectMapper JSON = new ObjectMapper();

    SessionKey toSessionKey() {
        ObjectNode json = JsonNodeFactory.instance.objectNode().put("id", id).put("created_on", createdOn).put("offline", offline);
        return new SessionKey((client == null ? json : json.put("client", client)).toString());
    }

    /** Returns null if the key does not name a row. */
    static SessionRowKey parse(SessionKey key) {
        try {
            JsonNode json = JSON.readTree(key.json());
            return json.path("id").isTextual() && json.path("created_on").isInt()
                    ? new SessionRowKey(json.get("id").textValue(), json.get("created_on").intValue(), json.path("offline").booleanValue(),
                            json.path("client").textValue())
                    : null;
        } catch (JsonProcessingException invalid) {
            return null;
        }
    }

    /** Returns the text that the id of an event is a digest of. */
    String toIdSource(String issuer, String salt) {
        return String.join("\n", id, String.valueOf(createdOn), String.valueOf(offline), client == null ? "" : client, issuer, salt);
    }
}
