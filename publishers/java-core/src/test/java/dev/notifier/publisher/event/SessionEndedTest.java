package dev.notifier.publisher.event;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

class SessionEndedTest {
    private static final String ISS = "https://id.example.com";
    private static final SessionKey KEY = new SessionKey("{\"row\":1}");

    private static ObjectNode client(String id) {
        return JsonNodeFactory.instance.objectNode().put("client_id", id);
    }

    private static SessionEnded ended(List<ObjectNode> clients, String idSource) {
        return new SessionEnded(KEY, idSource, ISS, "user-1", "sid-1", clients, Instant.parse("2026-01-31T12:00:00Z"), "terminated");
    }

    private static String id(String idSource) {
        return ended(List.of(client("shop")), idSource).toEvents(Lane.EVENTS).get(0).id();
    }

    @Test
    void theEventHasTheDocumentedMembers() throws Exception {
        OutgoingEvent outgoing = ended(List.of(client("shop").putNull("backchannel_logout_uri")), "").toEvents(Lane.BULK).get(0);
        JsonNode event = new ObjectMapper().readTree(outgoing.json());
        assertEquals(outgoing.id(), event.get("id").textValue());
        assertEquals(ISS, event.get("iss").textValue());
        assertEquals("user-1", event.get("sub").textValue());
        assertEquals("sid-1", event.get("sid").textValue());
        assertEquals("2026-01-31T12:00:00Z", event.get("ended_at").textValue());
        assertEquals("terminated", event.get("reason").textValue());
        assertTrue(event.get("clients").get(0).get("backchannel_logout_uri").isNull());
    }

    @Test
    void theIdIsADigestOfItsSource() {
        assertEquals(id("sid-1"), id("sid-1"), "a repetition has the same id");
        assertNotEquals(id("sid-1"), id("sid-2"));
        assertFalse(id("sid-1").contains("sid"), "logs contain the id");
    }

    @Test
    void aLargeEventIsSplitIntoEventsWithTheirOwnIds() {
        List<ObjectNode> clients = new ArrayList<>();
        for (int i = 0; i < 2_000; i++) {
            clients.add(client("client-" + i).put("backchannel_logout_uri", "https://client-" + i + ".example.com/" + "x".repeat(100)));
        }
        List<OutgoingEvent> events = ended(clients, "").toEvents(Lane.EVENTS);
        Set<String> ids = new HashSet<>();
        events.forEach(each -> {
            assertTrue(each.json().length <= 128 * 1024);
            ids.add(each.id());
        });
        assertTrue(events.size() > 1);
        assertEquals(events.size(), ids.size());
    }

    @Test
    void aLineIsParsedAsItWasWritten() throws Exception {
        OutgoingEvent event = ended(List.of(client("shöp")), "").toEvents(Lane.BULK).get(0);
        OutgoingEvent parsed = OutgoingEvent.parse(new String(event.toLine(), StandardCharsets.UTF_8));
        assertEquals(event.lane(), parsed.lane());
        assertEquals(event.id(), parsed.id());
        assertEquals(event.session(), parsed.session());
        assertArrayEquals(event.json(), parsed.json());
        assertNull(OutgoingEvent.parse(new String(event.withoutLookup().toLine(), StandardCharsets.UTF_8)).session());
    }

    @Test
    void anInvalidLineIsRefused() {
        for (String line : List.of("", "{", "[]", "{\"lane\":\"events\"}", "{\"lane\":\"other\",\"event\":{\"id\":\"1\",\"iss\":\"i\",\"clients\":[]}}",
                "{\"lane\":\"events\",\"event\":{\"id\":\"" + "x".repeat(256) + "\",\"iss\":\"i\",\"clients\":[]}}")) {
            assertThrows(IOException.class, () -> OutgoingEvent.parse(line), line);
        }
    }
}
