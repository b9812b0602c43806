package dev.notifier.publisher.publishing;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.net.httpserver.HttpServer;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.monitoring.FailureReason;
import dev.notifier.publisher.settings.PublisherSettings;
import dev.notifier.publisher.settings.SettingsReader;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class HttpTransportTest implements Transport.ResultListener {
    @TempDir
    Path folder;

    private final List<String> requests = new ArrayList<>();
    private final List<Integer> confirmed = new ArrayList<>();
    private final List<Integer> refused = new ArrayList<>();
    private final List<Integer> forbidden = new ArrayList<>();
    private HttpServer server;
    private int status = 202;
    private String limit = "10s";
    private String retryAfter;
    private String body;
    private String type = "application/problem+json";
    private boolean stalls;
    private final List<String> intercepted = new ArrayList<>();

    @BeforeEach
    void start() throws IOException {
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", exchange -> {
            requests.add(exchange.getRequestMethod() + " " + exchange.getRequestURI() + " " + exchange.getRequestHeaders().getFirst("Authorization") + " "
                    + new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8));
            if (retryAfter != null) {
                exchange.getResponseHeaders().set("Retry-After", retryAfter);
            }
            if (status / 100 == 3) {
                exchange.getResponseHeaders().set("Location", "/elsewhere");
            }
            String event = requests.get(requests.size() - 1);
            String id = event.substring(event.indexOf('"') + 1, event.lastIndexOf('"'));
            byte[] answer = (body != null ? body : status == 202 ? "{\"id\":\"" + id + "\"}" : "{\"type\":\"urn:notifier:problem\",\"title\":\"no\"}")
                    .getBytes(StandardCharsets.UTF_8);
            exchange.getResponseHeaders().set("Content-Type", type);
            exchange.sendResponseHeaders(status, stalls ? answer.length + 1 : status == 204 ? -1 : answer.length);
            if (status != 204) {
                exchange.getResponseBody().write(answer);
                exchange.getResponseBody().flush();
            }
            if (!stalls) {
                exchange.close();
            }
        });
        server.start();
    }

    @AfterEach
    void stop() {
        server.stop(0);
    }

    private Transport transport(int port, Lane lane) throws IOException {
        Path token = Files.writeString(folder.resolve("token"), "t0ken\n");
        PublisherSettings settings = SettingsReader.read(Map.of("url", "http://127.0.0.1:" + port + "/base", "secretFile", token.toString(), "outboxFolder", folder.toString(),
                "publishLimit", limit)::get, "", "test");
        return new HttpTransport(settings, lane);
    }

    private void publish(String... ids) throws Exception {
        try (Transport transport = transport(server.getAddress().getPort(), Lane.EVENTS)) {
            transport.publish(events(ids), this);
        }
    }

    private static List<OutgoingEvent> events(String... ids) {
        return List.of(ids).stream().map(each -> new OutgoingEvent(Lane.EVENTS, each, null, ("\"" + each + "\"").getBytes(StandardCharsets.UTF_8))).toList();
    }

    private PublishException failure() {
        return assertThrows(PublishException.class, () -> publish("a", "b"));
    }

    @Override
    public void onConfirmed(int index) {
        confirmed.add(index);
    }

    @Override
    public void onRefused(int index, String why) {
        refused.add(index);
    }

    @Override
    public void onForbidden(int index, String why) {
        forbidden.add(index);
    }

    @Test
    void eventsArePostedInOrderWithTheToken() throws Exception {
        publish("a", "b");
        assertEquals(List.of("POST /base/v1/events Bearer t0ken \"a\"", "POST /base/v1/events Bearer t0ken \"b\""), requests);
        assertEquals(List.of(0, 1), confirmed);
    }

    @Test
    void massLogoutsHaveTheirLane() throws Exception {
        try (Transport transport = transport(server.getAddress().getPort(), Lane.BULK)) {
            transport.publish(events("a"), this);
        }
        assertTrue(requests.get(0).contains("/v1/events?lane=bulk "));
    }

    @Override
    public void onIntercepted(int index, String why) {
        intercepted.add(index + " " + why);
    }

    @Test
    void anyOtherAnswerIsIntercepted() {
        for (String page : new String[] {"", "{}", "[]", "{\"id\": \"b\"}", "{\"id\": \"cut", "<html>Blocked</html>", "{\"type\": \"about:blank\"}"}) {
            for (int other : new int[] {200, 201, 202, 302, 400, 401, 403, 404, 413, 422}) {
                status = other;
                body = page;
                requests.clear();
                PublishException failure = failure();
                assertEquals(FailureReason.INTERCEPTED, failure.reason(), other + page);
                assertTrue(failure.getMessage().contains("the answer is " + other + " ("), failure.getMessage());
                assertEquals(1, requests.size(), "no redirect, and nothing after it");
            }
        }
        assertTrue(confirmed.isEmpty() && refused.isEmpty());
        assertEquals(70, intercepted.size());
    }

    @Test
    void aProblemOfAnotherContentTypeIsIntercepted() {
        status = 400;
        type = "application/json";
        assertEquals(FailureReason.INTERCEPTED, failure().reason());
    }

    @Test
    void otherProblemsOfNotifierAndOutagesHoldTheLane() {
        for (int other : new int[] {404, 408, 409, 429, 500, 503}) {
            status = other;
            assertEquals(FailureReason.REJECTED, failure().reason(), String.valueOf(other));
        }
        body = "<html>later</html>";
        for (int other : new int[] {408, 429, 500, 503}) {
            status = other;
            assertEquals(FailureReason.REJECTED, failure().reason(), String.valueOf(other));
        }
        assertTrue(intercepted.isEmpty());
    }

    @Test
    void aPageThatRepeatsTheRequestIsNotQuoted() {
        status = 403;
        for (String page : List.of("<p>t0ken", "<p>" + "x".repeat(1_000) + " T0KEN")) {
            body = page;
            String text = failure().getMessage();
            assertTrue(text.contains("a page that repeats the request"), text);
        }
    }

    @Test
    void aStalledBodyIsClassifiedByItsStatus() {
        limit = "300ms";
        status = 403;
        body = "<p>Blo";
        stalls = true;
        assertEquals(FailureReason.INTERCEPTED, failure().reason());
    }

    @Test
    void aProblemOfNotifierRefusesAndDelaysNoOther() throws Exception {
        for (int other : new int[] {400, 413, 422}) {
            status = other;
            refused.clear();
            publish("a", "b");
            assertEquals(List.of(0, 1), refused);
        }
    }

    @Test
    void anEventThatIsNotPermittedDelaysNoOther() throws Exception {
        status = 403;
        publish("a", "b");
        assertEquals(List.of(0, 1), forbidden);
        assertTrue(confirmed.isEmpty() && refused.isEmpty());
    }

    @Test
    void retryAfterIsKeptUpToAMinute() {
        status = 503;
        retryAfter = "7";
        assertEquals(Duration.ofSeconds(7), failure().retryAfter());
        retryAfter = "86400";
        assertEquals(Duration.ofSeconds(60), failure().retryAfter());
        retryAfter = "Wed, 21 Oct 2026 07:28:00 GMT";
        assertEquals(Duration.ZERO, failure().retryAfter());
    }

    @Test
    void aDeniedRequestDoesNotRevealTheToken() {
        status = 401;
        PublishException denied = failure();
        assertEquals(FailureReason.DENIED, denied.reason());
        assertFalse(denied.getMessage().contains("t0ken"));
    }

    @Test
    void aHangingServerTimesOut() throws Exception {
        limit = "300ms";
        try (ServerSocket silent = new ServerSocket(0, 5, InetAddress.getLoopbackAddress()); Transport transport = transport(silent.getLocalPort(), Lane.EVENTS)) {
            assertEquals(FailureReason.TIMED_OUT, assertThrows(PublishException.class, () -> transport.publish(events("a"), this)).reason());
        }
    }

    @Test
    void aClosedPortIsUnreachable() throws Exception {
        int port = server.getAddress().getPort();
        server.stop(0);
        try (Transport transport = transport(port, Lane.EVENTS)) {
            assertEquals(FailureReason.UNREACHABLE, assertThrows(PublishException.class, () -> transport.publish(events("a"), this)).reason());
        }
    }
}
