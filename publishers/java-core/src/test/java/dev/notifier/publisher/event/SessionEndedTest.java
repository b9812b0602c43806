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
    private static final String ISS = "https://kc.example.com/realms/demo";

    private static ObjectNode client(String id) {
        return JsonNodeFactory.instance.objectNode().put("client_id", id);
    }

    private static SessionEnded ended(SessionKey key, List<ObjectNode> clients, String salt) {
        return new SessionEnded(key, ISS, "user-1", clients, Instant.parse("2026-01-31T12:00:00Z"), "terminated", salt);
    }

    private static String id(SessionKey key, String salt) {
        return ended(key, List.of(client("shop")), salt).events(Lane.EVENTS).get(0).id();
    }

    @Test
    void itSaysWhatNotifierTakes() throws Exception {
        OutgoingEvent ending = ended(new SessionKey("sid-1", 17, false, null), List.of(client("shop").putNull("backchannel_logout_uri")), "").events(Lane.BULK).get(0);
        JsonNode event = new ObjectMapper().readTree(ending.event());
        assertEquals(ending.id(), event.get("id").textValue());
        assertEquals(ISS, event.get("iss").textValue());
        assertEquals("user-1", event.get("sub").textValue());
        assertEquals("sid-1", event.get("sid").textValue());
        assertEquals("2026-01-31T12:00:00Z", event.get("ended_at").textValue());
        assertEquals("terminated", event.get("reason").textValue());
        assertTrue(event.get("clients").get(0).get("backchannel_logout_uri").isNull());
    }

    @Test
    void theIdIsOfOneEnding() {
        SessionKey key = new SessionKey("sid-1", 17, false, null);
        assertEquals(id(key, ""), id(new SessionKey("sid-1", 17, false, null), ""), "a repetition is the same ending");
        assertNotEquals(id(key, ""), id(new SessionKey("sid-1", 18, false, null), ""), "a session of the same id that began later");
        assertNotEquals(id(key, ""), id(new SessionKey("sid-1", 17, true, null), ""), "the offline session");
        assertNotEquals(id(key, ""), id(new SessionKey("sid-1", 17, false, "shop"), ""), "one client's part of it");
        assertNotEquals(id(key, "a"), id(key, "b"));
        assertFalse(id(key, "").contains("sid"), "it stands in logs");
    }

    @Test
    void aLargeOneBecomesSeveralWithIdsOfTheirOwn() {
        List<ObjectNode> clients = new ArrayList<>();
        for (int i = 0; i < 2_000; i++) {
            clients.add(client("client-" + i).put("backchannel_logout_uri", "https://client-" + i + ".example.com/" + "x".repeat(100)));
        }
        List<OutgoingEvent> events = ended(new SessionKey("sid-1", 17, false, null), clients, "").events(Lane.EVENTS);
        Set<String> ids = new HashSet<>();
        events.forEach(each -> {
            assertTrue(each.event().length <= 128 * 1024);
            ids.add(each.id());
        });
        assertTrue(events.size() > 1);
        assertEquals(events.size(), ids.size());
    }

    @Test
    void aLineIsReadAsItWasWritten() throws Exception {
        OutgoingEvent ending = ended(new SessionKey("sid-1", 17, true, "c-1"), List.of(client("shöp")), "").events(Lane.BULK).get(0);
        OutgoingEvent read = OutgoingEvent.of(new String(ending.line(), StandardCharsets.UTF_8));
        assertEquals(ending.lane(), read.lane());
        assertEquals(ending.id(), read.id());
        assertEquals(ending.session(), read.session());
        assertArrayEquals(ending.event(), read.event());
        assertNull(OutgoingEvent.of(new String(ending.notToBeLookedUp().line(), StandardCharsets.UTF_8)).session());
    }

    @Test
    void whatIsNoEventIsNone() {
        for (String line : List.of("", "{", "[]", "{\"lane\":\"events\"}", "{\"lane\":\"other\",\"event\":{\"id\":\"1\",\"iss\":\"i\",\"clients\":[]}}",
                "{\"lane\":\"events\",\"event\":{\"id\":\"" + "x".repeat(256) + "\",\"iss\":\"i\",\"clients\":[]}}")) {
            assertThrows(IOException.class, () -> OutgoingEvent.of(line), line);
        }
    }
}
