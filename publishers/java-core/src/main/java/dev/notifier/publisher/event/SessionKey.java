package dev.notifier.publisher.event;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;

/**
 * What the look-up needs to know whether an ending has happened: the row in Keycloak's table of sessions.
 *
 * @param id the session's id, which an online and an offline session may share
 * @param createdOn when it began, in seconds: an id can come back after its end
 * @param client null for the whole session; else Keycloak's internal id of the one client whose part of the session ends
 */
public record SessionKey(String id, int createdOn, boolean offline, String client) {

    /** As it stands in a file of the outbox. */
    public void writeTo(ObjectNode into) {
        into.put("id", id).put("created_on", createdOn).put("offline", offline);
        if (client != null) {
            into.put("client", client);
        }
    }

    /** Null if there is none, or none that can be looked up. */
    public static SessionKey of(JsonNode read) {
        if (read == null || !read.path("id").isTextual() || !read.path("created_on").isInt()) {
            return null;
        }
        return new SessionKey(read.get("id").textValue(), read.get("created_on").intValue(), read.path("offline").booleanValue(),
                read.path("client").textValue());
    }

    /** The key of this row as one text. */
    String text() {
        return id + '\n' + createdOn + '\n' + offline + '\n' + (client == null ? "" : client);
    }
}
