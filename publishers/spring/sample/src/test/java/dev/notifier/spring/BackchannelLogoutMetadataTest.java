package dev.notifier.spring;

import static org.assertj.core.api.Assertions.assertThat;

import dev.notifier.spring.jackson.databind.JsonNode;
import java.net.URI;
import java.net.http.HttpRequest;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Registration and discovery in a real server, which has its own converter and its own customizer. */
class BackchannelLogoutMetadataTest {
    private static final String LOGOUT = "https://new.example.com/backchannel-logout?tenant=1";
    private static final Map<String, TestServer> SERVERS = new HashMap<>();

    @TempDir
    static Path folder;

    private static TestServer server(String profile) throws Exception {
        if (!SERVERS.containsKey(profile)) {
            SERVERS.put(profile, new TestServer(Files.createDirectory(folder.resolve(profile)), profile, TestServer.database(UUID.randomUUID().toString())));
        }
        return SERVERS.get(profile);
    }

    @AfterAll
    static void close() {
        SERVERS.values().forEach(TestServer::close);
        SERVERS.clear();
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "jdbc"})
    void aClientRegistersItsAddressReadsItAndIsNotified(String profile) throws Exception {
        TestServer server = server(profile);
        JsonNode answer = server.register(",\"backchannel_logout_uri\":\"" + LOGOUT + "\",\"backchannel_logout_session_required\":true");
        assertThat(answer.path("backchannel_logout_uri").asText()).as("%s", answer).isEqualTo(LOGOUT);
        assertThat(answer.get("backchannel_logout_session_required").isBoolean()).isTrue();
        JsonNode read = server.withToken(HttpRequest.newBuilder(URI.create(answer.get("registration_client_uri").asText())),
                answer.get("registration_access_token").asText());
        assertThat(read.path("backchannel_logout_uri").asText()).as("%s", read).isEqualTo(LOGOUT);
        assertThat(read.get("backchannel_logout_session_required").asBoolean()).isTrue();

        String client = answer.get("client_id").asText();
        TestServer.Browser browser = server.signIn("alice");
        String code = browser.code(client, "");
        JsonNode tokens = server.token(client, answer.get("client_secret").asText(), "",
                Map.of("grant_type", "authorization_code", "code", code, "redirect_uri", "http://127.0.0.1/callback"));
        browser.post("/logout", Map.of());
        JsonNode entry = server.outbox.await(TestServer.sid(tokens), Duration.ofSeconds(10)).get(0).get("clients").get(0);
        assertThat(entry.get("backchannel_logout_uri").asText()).isEqualTo(LOGOUT);
        assertThat(entry.get("backchannel_logout_session_required").asBoolean()).isTrue();
    }

    @ParameterizedTest
    @ValueSource(strings = {"", ",\"backchannel_logout_uri\":null,\"backchannel_logout_session_required\":null"})
    void aClientWithoutAnAddressRegistersAsBefore(String members) throws Exception {
        JsonNode answer = server("memory").register(members);
        assertThat(answer.get("client_id").asText()).isNotEmpty();
        assertThat(answer.has("backchannel_logout_uri")).isFalse();
        assertThat(answer.has("backchannel_logout_session_required")).isFalse();
    }

    @ParameterizedTest
    @ValueSource(strings = {"\"backchannel_logout_uri\":\"http://MARK.example.com/\"", "\"backchannel_logout_uri\":\"https://MARK.example.com/#x\"",
            "\"backchannel_logout_uri\":\"https://MARK@new.example.com/\"", "\"backchannel_logout_uri\":\"/MARK\"", "\"backchannel_logout_uri\":[\"https://MARK.example.com/\"]",
            "\"backchannel_logout_uri\":{\"MARK\":1}", "\"backchannel_logout_uri\":5", "\"backchannel_logout_uri\":\"https://MARK.example.com/\\u000aline\"",
            "\"backchannel_logout_session_required\":\"MARK\""})
    void aBadMemberIsRefusedAndItsValueIsNowhere(String member) throws Exception {
        TestServer server = server("memory");
        try (CapturedLogs logs = new CapturedLogs()) {
            JsonNode answer = server.register("," + member);
            assertThat(answer.path("error").asText()).as("%s", answer).isEqualTo("invalid_client_metadata");
            assertThat(answer.get("error_description").asText()).contains(member.substring(1, member.indexOf('"', 1)));
            assertThat(answer + logs.text()).doesNotContain("MARK");
        }
    }

    @Test
    void theDiscoveryDocumentHasBothMembersAndThoseOfTheApplication() throws Exception {
        for (String issuer : new String[] {"", "/one"}) {
            JsonNode metadata = server("memory").json(issuer + "/.well-known/openid-configuration");
            assertThat(metadata.path("backchannel_logout_supported").asBoolean()).isTrue();
            assertThat(metadata.path("backchannel_logout_session_supported").asBoolean()).isTrue();
            assertThat(metadata.path("op_policy_uri").asText()).isEqualTo("https://id.example.com/policy");
            assertThat(metadata.path("registration_endpoint").asText()).endsWith("/connect/register");
        }
    }

    /** The addresses of notifier's own tests. */
    @ParameterizedTest
    @ValueSource(strings = {"https://shop.example.com/logout?a=%2F", "https://shop.example.com:8443/", "HTTPS://Shop.Example.COM./", "https://shop.example.com",
            "https://shop.example.com?tenant=1", "https://1a.example/", "https://app-01.example/", "https://01.example.com/", "https://localhost/", "https://8.8.8.8/", "https://[2606:4700::1111]/",
            "https://[2606:4700::1111]:443/", "https://[2001:0db8::0001]/", "https://shop.example.com/a?next=https://other.example.com/"})
    void anAddressThatNotifierTakesIsUsable(String uri) {
        assertThat(BackchannelLogoutMetadata.isUsable(uri)).isTrue();
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "http://shop.example.com/", "https://user:password@shop.example.com/", "https://@shop.example.com/", "https://shop.example.com\\@127.0.0.1/",
            "https://shop.example.com:0/", "https://shop.example.com:65536/", "https://shop.example.com:000443/", "https://shop.example.com:/", "https://shop.example.com:80:80/",
            "https://shop.example.com/#x", "https://shop.example.com/#", "https://127.0.0.1#@shop.example.com/", "https://[fe80::1%25eth0]/", "https://[::1", "https://[127.0.0.1]/",
            "https://[1:2]/", "https://127.0.0.1.5/", "https://256.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/", "https://shop.example.123/",
            "https://①②⑦.0.0.1/", "https:///shop.example.com/", "https:shop.example.com", "//shop.example.com/", "file:///etc/passwd", "https://shop..example/",
            "https://-shop.example/", "https://shop.example.com/a b", "https://shop.example.com/\n", "https://a.example/,https://b.example/", "https://under_score.example/", "https://[::ffff:8.8.8.8]/", "https://[::ffff:08.8.8.8]/", "https://[::9999999999.0.0.1]/", "https://shop.example.com:00443/",
            "https://127.0.0.01/", "https://8.8.8.8./", "https://shop.example.com/%2", "https://shop.example.com/ä"})
    void anAddressThatNotifierRefusesIsNotUsable(String uri) {
        assertThat(BackchannelLogoutMetadata.isUsable(uri)).isFalse();
    }

    @Test
    void aLongAddressIsNotUsable() {
        assertThat(BackchannelLogoutMetadata.isUsable("https://shop.example.com/" + "a".repeat(4_071))).isTrue();
        assertThat(BackchannelLogoutMetadata.isUsable("https://shop.example.com/" + "a".repeat(4_072))).isFalse();
        assertThat(BackchannelLogoutMetadata.isUsable("https://" + "a".repeat(64) + ".example/")).isFalse();
        assertThat(BackchannelLogoutMetadata.isUsable("https://" + "a.".repeat(130) + "example/")).isFalse();
    }

    @Test
    void aVersionWithoutTheFieldIsReported() {
        try (CapturedLogs logs = new CapturedLogs()) {
            assertThat(PrivateField.read(new AtomicReference<>("x"), "registeredClientConverter", "it is slower")).isEmpty();
            assertThat(logs.text()).contains("has no field registeredClientConverter", "it is slower");
        }
    }
}
