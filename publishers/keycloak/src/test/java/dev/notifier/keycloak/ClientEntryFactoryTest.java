package dev.notifier.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.notifier.keycloak.ClientEntryFactory.ClientAttributes;
import dev.notifier.keycloak.ClientEntryFactory.RealmContext;
import java.util.HashMap;
import java.util.Map;
import org.junit.jupiter.api.Test;

class ClientEntryFactoryTest {
    private static final RealmContext REALM = new RealmContext("https://kc.example.com/auth", "https://admin.example.com/auth", "PS256");

    private static String entry(boolean enabled, String root, String... attributes) {
        Map<String, String> given = new HashMap<>();
        for (int i = 0; i < attributes.length; i += 2) {
            given.put(attributes[i], attributes[i + 1]);
        }
        return ClientEntryFactory.create(new ClientAttributes("shop", enabled, root, given.get("page"), given::get), REALM).toString();
    }

    private static String expected(String uri, boolean session, String algorithm) {
        return "{\"client_id\":\"shop\",\"backchannel_logout_uri\":\"" + uri + "\",\"backchannel_logout_session_required\":" + session
                + ",\"id_token_signed_response_alg\":\"" + algorithm + "\"}";
    }

    @Test
    void aClientWithAnAddressHasItsMetadata() {
        assertEquals(expected("https://shop.example.com/logout", true, "ES256"), entry(true, null, "backchannel.logout.url", "https://shop.example.com/logout",
                "backchannel.logout.session.required", "true", "id.token.signed.response.alg", "ES256"));
    }

    @Test
    void theRealmsAlgorithmIsTheDefault() {
        assertEquals(expected("https://shop.example.com/", false, "PS256"), entry(true, null, "backchannel.logout.url", "https://shop.example.com/"));
        assertEquals(expected("https://shop.example.com/", false, "PS256"),
                entry(true, null, "backchannel.logout.url", "https://shop.example.com/", "id.token.signed.response.alg", "any"));
    }

    @Test
    void notifiersAttributesTakePrecedence() {
        assertEquals(expected("https://other.example.com/", true, "PS256"), entry(true, null, "backchannel.logout.url", "https://shop.example.com/",
                "backchannel.logout.session.required", "false", "notifier.backchannel_logout_uri", "https://other.example.com/",
                "notifier.backchannel_logout_session_required", "true"));
    }

    @Test
    void aClientWithoutAnAddressHasNull() {
        String none = "{\"client_id\":\"shop\",\"backchannel_logout_uri\":null}";
        assertEquals(none, entry(true, "https://shop.example.com"));
        assertEquals(none, entry(true, null, "backchannel.logout.url", " "));
        assertEquals(none, entry(false, null, "backchannel.logout.url", "https://shop.example.com/"), "a disabled client");
    }

    @Test
    void addressesAreResolvedAsKeycloakDoes() {
        Map.of("/logout|https://shop.example.com/app", "https://shop.example.com/app/logout", //
                "/logout|", "https://kc.example.com/logout", //
                "/logout|${authBaseUrl}", "https://kc.example.com/auth/logout", //
                "${authAdminUrl}/x|", "https://admin.example.com/auth/x", //
                "https://a.example.com/|https://b.example.com", "https://a.example.com/").forEach((given, wanted) -> {
                    String[] parts = given.split("\\|", -1);
                    assertEquals(expected(wanted, false, "PS256"), entry(true, parts[1], "backchannel.logout.url", parts[0]), given);
                });
    }

    private static String asked(String uri, boolean session) {
        return "{\"client_id\":\"shop\",\"frontchannel_logout_uri\":\"" + uri + "\",\"frontchannel_logout_session_required\":" + session
                + ",\"backchannel_logout_uri\":null}";
    }

    @Test
    void aFrontChannelClientHasItsAddress() {
        assertEquals(asked("https://shop.example.com/out?a=1", true), entry(true, null, "page", "", "frontchannel.logout.url", "https://shop.example.com/out?a=1",
                "frontchannel.logout.session.required", "true"));
        assertEquals(asked("https://shop.example.com:8443/app", false), entry(true, "https://shop.example.com:8443", "page", "/app"), "the base URL");
        String none = "{\"client_id\":\"shop\",\"backchannel_logout_uri\":null}";
        assertEquals(none, entry(true, null, "frontchannel.logout.url", "https://shop.example.com/out"), "it is off");
        assertEquals(none, entry(false, null, "page", "", "frontchannel.logout.url", "https://shop.example.com/out"), "a disabled client");
    }

    @Test
    void aFrontChannelAddressThatNotifierWouldRefuseIsOmitted() {
        String none = "{\"client_id\":\"shop\",\"backchannel_logout_uri\":null}";
        for (String wrong : new String[] {"", "javascript:alert(1)", "https://${nowhere}/", "https://shop.example.com/#a", "https://u@shop.example.com/",
                "https://shop..example.com/", "https://-shop.example.com/", "https://1.2.3.4.5/", "https://shop.example.com:0/", "https://shop.example.com:99999/",
                "https://shop.example.com/a b", "https://shop.example.com/b\u00fcro", "https://shop.example.com/a\\b", "https://" + "a.".repeat(127) + "aa/",
                "https://" + "a".repeat(64) + "/", "https://shop.example.com/" + "x".repeat(4096)}) {
            assertEquals(none, entry(true, null, "page", wrong), wrong);
        }
    }

    @Test
    void aClientThatCannotBeNotifiedHasItsIdAlone() {
        String named = "{\"client_id\":\"shop\"}";
        String url = "https://shop.example.com/";
        assertEquals(named, entry(true, null, "backchannel.logout.url", "https://${nowhere.to.be.found}/"));
        assertEquals(named, entry(true, null, "backchannel.logout.url", url, "id.token.encrypted.response.alg", "RSA-OAEP"));
        assertEquals(named, entry(true, null, "backchannel.logout.url", url, "id.token.signed.response.alg", "HS256"));
    }
}
