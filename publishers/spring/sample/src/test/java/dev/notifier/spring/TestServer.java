package dev.notifier.spring;

import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.jwk.KeyUse;
import com.nimbusds.jose.jwk.gen.RSAKeyGenerator;
import com.nimbusds.jwt.SignedJWT;
import dev.notifier.spring.jackson.databind.JsonNode;
import dev.notifier.spring.jackson.databind.ObjectMapper;
import dev.notifier.spring.sample.SampleServer;
import java.io.IOException;
import java.net.CookieManager;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.context.ConfigurableApplicationContext;

/** The sample server on a free port, with an outbox whose notifier is unreachable. */
final class TestServer implements AutoCloseable {
    private static final ObjectMapper JSON = new ObjectMapper();

    final ConfigurableApplicationContext context;
    final OutboxEvents outbox;
    final String url;

    TestServer(Path folder, String profile, String database, String... arguments) throws Exception {
        Path keys = folder.resolve("keys.json");
        Files.writeString(keys, new JWKSet(new RSAKeyGenerator(2048).keyID("notifier").keyUse(KeyUse.SIGNATURE).generate()).toPublicJWKSet().toString());
        List<String> all = new ArrayList<>(List.of("--server.port=0", "--server.tomcat.background-processor-delay=1s", "--spring.datasource.url=" + database,
                "--notifier.url=http://127.0.0.1:9", "--notifier.outbox.folder=" + folder.resolve("outbox"), "--notifier.public-keys=" + keys,
                "--notifier.drain-limit=50ms", "--notifier.sweep.interval=1s",
                "--spring.flyway.enabled=false", "--spring.liquibase.enabled=false"));
        all.addAll(List.of(arguments));
        context = new SpringApplicationBuilder(SampleServer.class).profiles(profile).run(all.toArray(String[]::new));
        outbox = new OutboxEvents(folder.resolve("outbox"));
        url = "http://127.0.0.1:" + context.getEnvironment().getProperty("local.server.port");
    }

    static String database(String name) {
        return "jdbc:h2:mem:" + name + ";DB_CLOSE_DELAY=-1";
    }

    Browser signIn(String user) {
        Browser browser = new Browser();
        browser.post("/login", Map.of("username", user, "password", "pw"));
        return browser;
    }

    JsonNode json(String path) throws IOException {
        return JSON.readTree(new Browser().get(path).body());
    }

    @Override
    public void close() {
        context.close();
    }

    private static String encode(Map<String, String> form) {
        return form.entrySet().stream().map(each -> each.getKey() + "=" + URLEncoder.encode(each.getValue(), StandardCharsets.UTF_8)).collect(Collectors.joining("&"));
    }

    /** Redeems a code. Returns the answer of the token endpoint. */
    JsonNode redeem(String code, String client, String issuer) throws IOException {
        return token(client, "s-" + client, issuer, Map.of("grant_type", "authorization_code", "code", code, "redirect_uri", "http://127.0.0.1/callback"));
    }

    /**
     * Returns the answer of the token endpoint.
     *
     * @param issuer the issuer's path, or its whole URL
     */
    JsonNode token(String client, String secret, String issuer, Map<String, String> form) throws IOException {
        return ask(client, secret, issuer + "/oauth2/token", form);
    }

    JsonNode refresh(JsonNode tokens, String client) throws IOException {
        return token(client, "s-" + client, "", Map.of("grant_type", "refresh_token", "refresh_token", tokens.get("refresh_token").asText()));
    }

    /** Sends a request of a client. */
    JsonNode ask(String client, String secret, String path, Map<String, String> form) throws IOException {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url).resolve(path))
                .header("Authorization", "Basic " + Base64.getEncoder().encodeToString((client + ":" + secret).getBytes(StandardCharsets.UTF_8)));
        return JSON.readTree(new Browser().send(request, form).body());
    }

    /** Registers a client by these members. Returns the answer of the registration endpoint. */
    JsonNode register(String members) throws IOException {
        String token = token("registrar", "s-registrar", "", Map.of("grant_type", "client_credentials", "scope", "client.create")).get("access_token").asText();
        return withToken(HttpRequest.newBuilder(URI.create(url + "/connect/register")).header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString("{\"redirect_uris\":[\"http://127.0.0.1/callback\"]" + members + "}")), token);
    }

    JsonNode withToken(HttpRequest.Builder request, String token) throws IOException {
        return JSON.readTree(new Browser().send(request.header("Authorization", "Bearer " + token), null).body());
    }

    static String sid(JsonNode tokens) throws Exception {
        return SignedJWT.parse(tokens.get("id_token").asText()).getJWTClaimsSet().getStringClaim("sid");
    }

    /** A browser with its cookies, which follows no redirect. */
    final class Browser {
        private final HttpClient http = HttpClient.newBuilder().cookieHandler(new CookieManager()).build();

        HttpResponse<String> get(String path) {
            return send(HttpRequest.newBuilder(URI.create(url + path)).header("Accept", "text/html,application/json"), null);
        }

        HttpResponse<String> post(String path, Map<String, String> form) {
            return send(HttpRequest.newBuilder(URI.create(url + path)), form);
        }

        private HttpResponse<String> send(HttpRequest.Builder request, Map<String, String> form) {
            if (form != null) {
                request.header("Content-Type", "application/x-www-form-urlencoded").POST(HttpRequest.BodyPublishers.ofString(encode(form)));
            }
            try {
                return http.send(request.build(), HttpResponse.BodyHandlers.ofString());
            } catch (IOException | InterruptedException failure) {
                throw new IllegalStateException(failure);
            }
        }

        String code(String client, String issuerPath) {
            return code(client, issuerPath, "openid");
        }

        String code(String client, String issuerPath, String scope) {
            HttpResponse<String> answer = get(issuerPath + "/oauth2/authorize?" + encode(Map.of("response_type", "code", "client_id", client, "scope", scope,
                    "state", "x", "redirect_uri", "http://127.0.0.1/callback")));
            String location = answer.headers().firstValue("Location").orElseThrow(() -> new IllegalStateException(answer.statusCode() + " " + answer.body()));
            if (!location.contains("code=")) {
                throw new IllegalStateException("no code: " + location);
            }
            return location.replaceFirst(".*[?&]code=([^&]+).*", "$1");
        }

        /** Signs in at a client. Returns the tokens. */
        JsonNode tokens(String client) throws IOException {
            return redeem(code(client, ""), client, "");
        }

        String sessionId() {
            return get("/sample/session").body();
        }
    }
}
