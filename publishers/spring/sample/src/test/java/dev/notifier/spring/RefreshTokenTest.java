package dev.notifier.spring;

import static org.assertj.core.api.Assertions.assertThat;

import dev.notifier.spring.jackson.databind.JsonNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.UUID;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.springframework.security.oauth2.server.authorization.OAuth2Authorization;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.OAuth2TokenType;

/** Refresh tokens after the end of their session, in a real server. */
class RefreshTokenTest {
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

    private static boolean isActive(TestServer server, JsonNode tokens, String kind) throws Exception {
        return server.ask("shop", "s-shop", "/oauth2/introspect", Map.of("token", tokens.get(kind).asText())).get("active").asBoolean();
    }

    private static void assertRefused(TestServer server, JsonNode tokens) throws Exception {
        for (int attempt = 0; attempt < 2; attempt++) {
            assertThat(server.refresh(tokens, "shop").path("error").asText()).isEqualTo("invalid_grant");
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "table", "jdbc"})
    void aRefreshTokenIsRevokedWithItsSessionAlone(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        JsonNode first = browser.tokens("shop");
        JsonNode second = browser.tokens("shop");
        JsonNode other = server.signIn("alice").tokens("shop");
        first = server.refresh(first, "shop");
        assertThat(first.has("refresh_token")).as("%s", first).isTrue();
        browser.post("/logout", Map.of());
        assertRefused(server, first);
        assertRefused(server, second);
        assertThat(server.refresh(other, "shop").has("access_token")).as("another session of the same user").isTrue();
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "jdbc"})
    void aRefreshTokenWithOfflineAccessContinues(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        JsonNode tokens = server.redeem(browser.code("shop", "", "openid offline_access"), "shop", "");
        browser.post("/logout", Map.of());
        for (int times = 0; times < 2; times++) {
            tokens = server.refresh(tokens, "shop");
            assertThat(tokens.has("access_token")).as("%s", tokens).isTrue();
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "jdbc"})
    void theRevocationIsStoredAndSeenByIntrospection(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        JsonNode tokens = browser.tokens("shop");
        assertThat(isActive(server, tokens, "refresh_token")).isTrue();
        browser.post("/logout", Map.of());
        assertThat(isActive(server, tokens, "refresh_token")).isFalse();
        OAuth2AuthorizationService stored = server.context.getBean(OAuth2AuthorizationService.class);
        OAuth2Authorization authorization = stored.findByToken(tokens.get("access_token").asText(), OAuth2TokenType.ACCESS_TOKEN);
        assertThat(authorization.getRefreshToken().isInvalidated()).isTrue();
    }

    @ParameterizedTest
    @ValueSource(strings = {"memory", "jdbc"})
    void devicesAndClientCredentialsAreUntouched(String profile) throws Exception {
        TestServer server = server(profile);
        TestServer.Browser browser = server.signIn("alice");
        browser.tokens("shop");
        JsonNode device = server.ask("shop", "s-shop", "/oauth2/device_authorization", Map.of("scope", "files"));
        String page = browser.get("/oauth2/device_verification?user_code=" + device.get("user_code").asText()).body();
        Matcher state = Pattern.compile("name=\"state\" value=\"([^\"]+)\"").matcher(page);
        assertThat(state.find()).as(page).isTrue();
        browser.post("/oauth2/device_verification", Map.of("client_id", "shop", "state", state.group(1), "user_code", device.get("user_code").asText(), "scope", "files"));
        JsonNode tokens = server.token("shop", "s-shop", "", Map.of("grant_type", "urn:ietf:params:oauth:grant-type:device_code", "device_code", device.get("device_code").asText()));
        assertThat(tokens.has("refresh_token")).as("%s", tokens).isTrue();
        JsonNode credentials = server.token("registrar", "s-registrar", "", Map.of("grant_type", "client_credentials", "scope", "client.create"));
        browser.post("/logout", Map.of());
        assertThat(isActive(server, credentials, "access_token")).isTrue();
        assertThat(server.refresh(tokens, "shop").has("access_token")).isTrue();
    }

    @Test
    void aPropertyTurnsItOff() throws Exception {
        Path own = Files.createDirectory(folder.resolve("off"));
        try (TestServer server = new TestServer(own, "memory", "jdbc:h2:mem:unused", "--notifier.refresh-tokens.revoke=false")) {
            TestServer.Browser browser = server.signIn("alice");
            JsonNode tokens = browser.tokens("shop");
            browser.post("/logout", Map.of());
            assertThat(server.refresh(tokens, "shop").has("access_token")).isTrue();
        }
    }
}
