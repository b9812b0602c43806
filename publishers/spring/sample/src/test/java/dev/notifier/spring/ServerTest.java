package dev.notifier.spring;

import static org.assertj.core.api.Assertions.assertThat;

import com.nimbusds.jwt.SignedJWT;
import dev.notifier.spring.jackson.databind.JsonNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The starter's jar in a real server: each way to end a session, with sessions in memory and of Spring Session JDBC. */
class ServerTest {
    private static final Duration AT_ONCE = Duration.ofSeconds(10);
    private static final Duration BY_THE_SWEEP = Duration.ofSeconds(60);
    private static final Map<String, TestServer> SERVERS = new HashMap<>();

    @TempDir
    static Path folder;

    private static TestServer server(String profile) throws Exception {
        TestServer server = SERVERS.get(profile);
        if (server == null) {
            Path own = Files.createDirectory(folder.resolve(profile));
            server = new TestServer(own, profile, TestServer.database(UUID.randomUUID().toString()));
            SERVERS.put(profile, server);
        }
        return server;
    }

    @AfterAll
    static void close() {
        SERVERS.values().forEach(TestServer::close);
        SERVERS.clear();
    }

    private static void assertPublished(TestServer server, String sid, Duration limit) {
        List<JsonNode> events = server.outbox.await(sid, limit);
        assertThat(events).hasSize(1);
        assertThat(OutboxEvents.clientIds(events.get(0))).containsExactlyInAnyOrder("mail", "shop");
    }

    /** Signs in at both clients. Returns the `sid`. */
    private static String signInAtBoth(TestServer.Browser browser) throws Exception {
        String sid = TestServer.sid(browser.tokens("shop"));
        assertThat(TestServer.sid(browser.tokens("mail"))).isEqualTo(sid);
        return sid;
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void aFormLogoutIsPublished(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        String sid = signInAtBoth(browser);
        browser.post("/logout", Map.of());
        assertPublished(server, sid, AT_ONCE);
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void aLogoutByAClientIsPublished(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        JsonNode tokens = browser.tokens("shop");
        browser.tokens("mail");
        assertThat(browser.get("/connect/logout?id_token_hint=" + tokens.get("id_token").asText()).statusCode()).isLessThan(400);
        assertPublished(server, TestServer.sid(tokens), AT_ONCE);
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void anInvalidatedSessionIsPublished(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        String sid = signInAtBoth(browser);
        browser.post("/sample/invalidate", Map.of());
        assertPublished(server, sid, AT_ONCE);
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void anExpiredSessionIsPublished(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        String sid = signInAtBoth(browser);
        browser.post("/sample/timeout", Map.of("seconds", "1"));
        assertPublished(server, sid, BY_THE_SWEEP);
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void aSessionThatAnAdministratorExpiresIsPublishedBeforeTheBrowsersNextRequest(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("expired-" + profile);
        String sid = signInAtBoth(browser);
        assertThat(server.signIn("admin").post("/sample/admin/expire", Map.of("user", "expired-" + profile)).body()).isEqualTo("1");
        assertPublished(server, sid, BY_THE_SWEEP);
    }

    @Test
    void aSessionThatAnAdministratorDeletesIsPublished() throws Exception {
        TestServer server = server("jdbc");
        TestServer.Browser browser = server.signIn("alice");
        String sid = signInAtBoth(browser);
        server.signIn("admin").post("/sample/admin/delete", Map.of("session", browser.sessionId()));
        assertPublished(server, sid, BY_THE_SWEEP);
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void aSecondSignInInTheSessionKeepsItsClients(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        String first = signInAtBoth(browser);
        browser.post("/login", Map.of("username", "alice", "password", "pw"));
        String second = signInAtBoth(browser);
        assertThat(second).isNotEqualTo(first);
        assertThat(server.outbox.ofSession(first)).as("the session continues").isEmpty();
        browser.post("/logout", Map.of());
        assertPublished(server, first, AT_ONCE);
        assertPublished(server, second, AT_ONCE);
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void aSessionWithANewIdIsPublishedAtItsEnd(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        String sid = signInAtBoth(browser);
        browser.post("/sample/change-id", Map.of());
        browser.post("/logout", Map.of());
        assertPublished(server, sid, AT_ONCE);
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void aCodeThatIsRedeemedAfterAnotherSignInHasTheSidOfItsSession(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser first = server.signIn("alice");
        String sid = signInAtBoth(first);
        String code = first.code("shop", "");
        TestServer.Browser second = server.signIn("alice");
        String other = signInAtBoth(second);
        assertThat(TestServer.sid(server.redeem(code, "shop", ""))).isEqualTo(sid).isNotEqualTo(other);
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void aCodeIsRefusedAfterTheEndOfItsSession(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        signInAtBoth(browser);
        String code = browser.code("shop", "");
        browser.post("/logout", Map.of());
        assertThat(server.redeem(code, "shop", "").get("error").asText()).isEqualTo("invalid_grant");
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void eachIssuerOfTheServerHasItsEvent(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        String sid = null;
        for (String issuer : List.of("/one", "/two")) {
            JsonNode tokens = server.redeem(browser.code("shop", issuer), "shop", issuer);
            assertThat(SignedJWT.parse(tokens.get("id_token").asText()).getJWTClaimsSet().getIssuer()).isEqualTo(server.url + issuer);
            sid = TestServer.sid(tokens);
        }
        browser.post("/logout", Map.of());
        server.outbox.await(sid, AT_ONCE);
        assertThat(server.outbox.ofSession(sid)).extracting(each -> each.get("iss").asText()).containsExactlyInAnyOrder(server.url + "/one", server.url + "/two");
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void aClientMayReachTheServerByAnotherHostThanTheBrowser(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        String internal = server.url.replace("127.0.0.1", "localhost");
        String sid = TestServer.sid(server.redeem(browser.code("shop", ""), "shop", internal));
        browser.post("/logout", Map.of());
        assertThat(server.outbox.await(sid, AT_ONCE)).extracting(each -> each.get("iss").asText()).containsExactly(internal);
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void aSessionThatExceedsTheLimitIsPublished(String profile) throws Exception {
        Path own = Files.createDirectory(folder.resolve("limited-" + profile));
        try (TestServer server = new TestServer(own, profile, TestServer.database(UUID.randomUUID().toString()), "--sample.max-sessions=1")) {
            TestServer.Browser browser = server.signIn("alice");
            String sid = signInAtBoth(browser);
            server.signIn("alice");
            assertPublished(server, sid, BY_THE_SWEEP);
        }
    }

    @Test
    void aSessionThatExpiresInTheSharedRegistryIsPublished() throws Exception {
        Path own = Files.createDirectory(folder.resolve("shared-registry"));
        try (TestServer server = new TestServer(own, "jdbc", TestServer.database(UUID.randomUUID().toString()), "--sample.max-sessions=1", "--sample.shared-registry=true")) {
            String sid = signInAtBoth(server.signIn("alice"));
            server.signIn("alice");
            assertPublished(server, sid, BY_THE_SWEEP);
            String other = signInAtBoth(server.signIn("bob"));
            assertThat(server.signIn("admin").post("/sample/admin/expire", Map.of("user", "bob")).body()).isEqualTo("1");
            assertPublished(server, other, BY_THE_SWEEP);
        }
    }

    @Test
    void theSessionsInMemoryArePublishedAfterARestart() throws Exception {
        Path own = Files.createDirectory(folder.resolve("restarted"));
        String database = TestServer.database(UUID.randomUUID().toString());
        String sid;
        try (TestServer server = new TestServer(own, "table", database)) {
            sid = signInAtBoth(server.signIn("alice"));
        }
        try (TestServer server = new TestServer(own, "table", database)) {
            assertPublished(server, sid, BY_THE_SWEEP);
        }
    }

    @Test
    void theSessionsInTheDatabaseSurviveARestart() throws Exception {
        Path own = Files.createDirectory(folder.resolve("surviving"));
        String database = TestServer.database(UUID.randomUUID().toString());
        String sid;
        String session;
        try (TestServer server = new TestServer(own, "jdbc", database)) {
            TestServer.Browser browser = server.signIn("alice");
            sid = signInAtBoth(browser);
            session = browser.sessionId();
        }
        try (TestServer server = new TestServer(own, "jdbc", database)) {
            assertThat(server.outbox.await(sid, Duration.ofSeconds(3))).isEmpty();
            server.signIn("admin").post("/sample/admin/delete", Map.of("session", session));
            assertPublished(server, sid, BY_THE_SWEEP);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "jdbc"})
    void theJwkSetHasNotifiersKeysAndTokensAreSignedAsBefore(String profile) throws Exception {
        TestServer server = server(profile);
        assertThat(server.json("/oauth2/jwks").get("keys")).extracting(each -> each.get("kid").asText()).containsExactly("server", "notifier");
        String token = server.signIn("alice").tokens("shop").get("id_token").asText();
        assertThat(SignedJWT.parse(token).getHeader().getKeyID()).isEqualTo("server");
    }

    @Test
    void theHealthHasThePendingEventsAndIsNoPartOfReadiness() throws Exception {
        TestServer server = server("memory");
        JsonNode health = server.json("/actuator/health");
        assertThat(health.get("components").get("notifier").get("details").has("pending")).isTrue();
        assertThat(server.json("/actuator/health/readiness").toString()).contains("UP").doesNotContain("notifier");
        assertThat(server.json("/actuator/metrics/notifier.publisher.waiting").get("measurements").size()).isEqualTo(1);
    }
}
