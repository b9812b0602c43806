package dev.notifier.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.SessionEnded;
import dev.notifier.publisher.event.SessionKey;
import java.time.Instant;
import java.util.List;
import org.junit.jupiter.api.Test;

class SessionRowKeyTest {
    private static final String ISS = "https://kc.example.com/realms/demo";
    private static final SessionRowKey SESSION = new SessionRowKey("sid-1", 1790000001, false, null);
    private static final SessionRowKey CLIENT = new SessionRowKey("sid-4", 1790000004, true, "c-1");

    private static String eventId(SessionRowKey key, String salt) {
        SessionEnded ended = new SessionEnded(key.toSessionKey(), key.toIdSource(ISS, salt), ISS, "user-1", key.id(),
                List.of(JsonNodeFactory.instance.objectNode().put("client_id", "shop")), Instant.EPOCH, null);
        return ended.toEvents(Lane.EVENTS).get(0).id();
    }

    @Test
    void theKeyIsStoredAsEarlierPlugInsDid() {
        assertEquals("{\"id\":\"sid-1\",\"created_on\":1790000001,\"offline\":false}", SESSION.toSessionKey().json());
        assertEquals("{\"id\":\"sid-4\",\"created_on\":1790000004,\"offline\":true,\"client\":\"c-1\"}", CLIENT.toSessionKey().json());
    }

    @Test
    void aStoredKeyIsParsed() {
        assertEquals(SESSION, SessionRowKey.parse(SESSION.toSessionKey()));
        assertEquals(CLIENT, SessionRowKey.parse(CLIENT.toSessionKey()));
        assertNull(SessionRowKey.parse(new SessionKey("{}")));
        assertNull(SessionRowKey.parse(new SessionKey("{")));
    }

    @Test
    void aSessionEndHasTheIdThatEarlierPlugInsGaveIt() {
        assertEquals("6323dcc1a98e24409566a9ed260ca29b", eventId(SESSION, ""));
        assertEquals("4a6bc3f6d2e8a17f68356db2e521c7e7", eventId(CLIENT, "1790000100"));
    }

    @Test
    void differentSessionEndsHaveDifferentIds() {
        String id = eventId(SESSION, "");
        assertNotEquals(id, eventId(new SessionRowKey("sid-1", 1790000002, false, null), ""), "a later session with the same id");
        assertNotEquals(id, eventId(new SessionRowKey("sid-1", 1790000001, true, null), ""), "the offline session");
        assertNotEquals(id, eventId(new SessionRowKey("sid-1", 1790000001, false, "shop"), ""), "one client of the session");
        assertNotEquals(id, eventId(SESSION, "a"));
    }
}
