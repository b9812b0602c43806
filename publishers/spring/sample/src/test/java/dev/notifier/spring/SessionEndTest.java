package dev.notifier.spring;

import static org.assertj.core.api.Assertions.assertThat;

import dev.notifier.spring.jackson.databind.JsonNode;
import dev.notifier.spring.publisher.event.Lane;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.springframework.beans.BeanUtils;
import org.springframework.mock.web.MockFilterChain;
import org.springframework.mock.web.MockHttpServletRequest;
import org.springframework.mock.web.MockHttpServletResponse;
import org.springframework.mock.web.MockHttpSession;
import org.springframework.security.core.session.SessionRegistryImpl;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.context.AuthorizationServerContextHolder;
import org.springframework.security.oauth2.server.authorization.settings.AuthorizationServerSettings;
import org.springframework.security.web.session.HttpSessionDestroyedEvent;
import org.springframework.security.web.session.HttpSessionIdChangedEvent;

/** The filter, the events and the sweep, with a real outbox. */
class SessionEndTest {
    private static final Duration INTERVAL = Duration.ofSeconds(30);

    @TempDir
    Path folder;

    private final InMemorySessionClientStore store = new InMemorySessionClientStore();

    private SessionSweep sweep(TestPublisher publisher) {
        return new SessionSweep(publisher.stores, null, publisher.publisher, publisher.ends, INTERVAL);
    }

    private static void filter(TestPublisher publisher, MockHttpServletRequest request, Consumer<HttpServletRequest> application) throws Exception {
        MockFilterChain chain = new MockFilterChain(new HttpServlet() {
            private static final long serialVersionUID = 1L;

            @Override
            protected void service(HttpServletRequest inner, HttpServletResponse response) {
                application.accept(inner);
            }
        });
        new SessionEndFilter(() -> publisher.ends).doFilter(request, new MockHttpServletResponse(), chain);
    }

    private static MockHttpServletRequest request(String sessionId) {
        MockHttpServletRequest request = new MockHttpServletRequest("GET", "/");
        MockHttpSession session = new MockHttpSession(null, sessionId);
        session.setNew(false);
        request.setSession(session);
        return request;
    }

    @Test
    void theEventNamesTheSessionAndItsClients() {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            publisher.addSession("s1", "sid1");
            store.update(TestPublisher.row("s1", "sid1", "shop"), TestPublisher.ISSUER, "pairwise");
            publisher.living.clear();
            publisher.ends.onSignOut("s1");
            JsonNode event = publisher.outbox.events().get(0);
            assertThat(publisher.outbox.lines().get(0).get("lane").asText()).isEqualTo("events");
            assertThat(event.get("iss").asText()).isEqualTo(TestPublisher.ISSUER);
            assertThat(event.get("sid").asText()).isEqualTo("sid1");
            assertThat(event.get("clients").get(0).toString()).isEqualTo("{\"client_id\":\"mail\",\"sub\":\"alice\",\"backchannel_logout_uri\":null}");
            assertThat(event.get("clients").get(1).toString()).isEqualTo("{\"client_id\":\"shop\",\"sub\":\"pairwise\",\"backchannel_logout_uri\":"
                    + "\"https://shop.example.com/out\",\"backchannel_logout_session_required\":true,\"id_token_signed_response_alg\":\"RS256\"}");
            assertThat(store.findBySession("s1")).isEmpty();
        }
    }

    @Test
    void twoProcessesThatFindTheSameEndGiveItTheSameId() {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            for (int process = 0; process < 2; process++) {
                publisher.addSession("s1", "sid1");
                publisher.ends.publish("s1", Lane.BULK, null);
            }
            assertThat(publisher.outbox.events()).hasSize(2).extracting(each -> each.get("id")).containsOnly(publisher.outbox.events().get(0).get("id"));
            store.add(new SessionClient("s1", "sid1", "shop", TestPublisher.ISSUER, "alice", 2_000, SessionClient.SHARED));
            publisher.ends.publish("s1", Lane.BULK, null);
            assertThat(publisher.outbox.events().stream().map(each -> each.get("id")).distinct()).as("a later end of the same session").hasSize(2);
        }
    }

    @Test
    void theIssuersAndSidsOfASessionAreSeparateEvents() {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            publisher.addSession("s1", "sid1");
            publisher.addSession("s1", "sid2");
            store.add(new SessionClient("s1", "sid1", "shop", "https://other.example.com", "alice", 1_000, SessionClient.SHARED));
            publisher.ends.publish("s1", Lane.EVENTS, null);
            assertThat(publisher.outbox.events()).extracting(each -> each.get("sid").asText() + " " + each.get("iss").asText() + " " + OutboxEvents.clientIds(each))
                    .containsExactlyInAnyOrder("sid1 https://id.example.com [mail, shop]", "sid2 https://id.example.com [mail, shop]",
                            "sid1 https://other.example.com [shop]");
        }
    }

    @Test
    void theFilterPublishesASessionThatTheRequestEnds() throws Exception {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            publisher.addSession("s1", "sid1");
            filter(publisher, request("s1"), request -> {
                request.getSession().invalidate();
                publisher.living.remove("s1");
            });
            assertThat(publisher.outbox.ofSession("sid1")).hasSize(1);
        }
    }

    @Test
    void theFilterPublishesASessionThatTheRequestReplaces() throws Exception {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            publisher.addSession("s1", "sid1");
            MockHttpServletRequest outer = request("s1");
            filter(publisher, outer, request -> {
                request.getSession().invalidate();
                publisher.living.remove("s1");
                await(2);
                outer.setSession(new MockHttpSession(null, "s2"));
            });
            assertThat(publisher.outbox.ofSession("sid1")).hasSize(1);
        }
    }

    private static void await(int millis) {
        long until = System.currentTimeMillis() + millis;
        while (System.currentTimeMillis() < until) {
            Thread.onSpinWait();
        }
    }

    @Test
    void theFilterMovesTheRowsOfASessionWithANewId() throws Exception {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            publisher.addSession("s1", "sid1");
            String[] changed = new String[1];
            filter(publisher, request("s1"), request -> changed[0] = request.changeSessionId());
            assertThat(publisher.outbox.events()).isEmpty();
            assertThat(store.findBySession(changed[0])).hasSize(2);
        }
    }

    @Test
    void theFilterReadsNoSessionByItself() throws Exception {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            MockHttpServletRequest request = new MockHttpServletRequest("GET", "/logo.png") {
                @Override
                public HttpSession getSession(boolean create) {
                    throw new AssertionError("a request for an image prolongs no session");
                }
            };
            filter(publisher, request, inner -> { });
        }
    }

    @Test
    void anEventOfTheContainerPublishesAndAnExpiredSessionGoesToTheBulkLane() {
        try (TestPublisher publisher = new TestPublisher(folder, store, false)) {
            publisher.addSession(SessionStores.toSid("signed-out"), "sid1");
            publisher.addSession(SessionStores.toSid("expired"), "sid2");
            publisher.ends.onApplicationEvent(new HttpSessionDestroyedEvent(session("signed-out")));
            publisher.ends.onApplicationEvent(expired("expired"));
            publisher.ends.runPending();
            assertThat(publisher.outbox.await("sid1", Duration.ofSeconds(5))).hasSize(1);
            JsonNode event = publisher.outbox.await("sid2", Duration.ofSeconds(5)).get(0);
            assertThat(event.get("reason").asText()).isEqualTo("session_expiration");
            assertThat(publisher.outbox.lines()).extracting(each -> each.get("lane").asText()).containsExactlyInAnyOrder("events", "bulk");
        }
    }

    /** A session in memory that has clients. */
    private static MockHttpSession session(String id) {
        MockHttpSession session = new MockHttpSession(null, id);
        session.setAttribute(SessionEndPublisher.HAS_CLIENTS, true);
        return session;
    }

    private static HttpSessionDestroyedEvent expired(String id) {
        return new HttpSessionDestroyedEvent(new ExpiredSession(id));
    }

    @Test
    void sessionsThatExpireTogetherDelayNoSignOut() {
        TestDatabase database = TestDatabase.withTables();
        try (TestPublisher publisher = new TestPublisher(folder, new JdbcSessionClientStore(database, "node", null), false)) {
            publisher.addSession(SessionStores.toSid("s1"), "sid1");
            publisher.addSession(SessionStores.toSid("expired-2999"), "sid2");
            database.hang();
            for (int each = 0; each < 3_000; each++) {
                publisher.ends.onApplicationEvent(expired("expired-" + each));
            }
            database.recover();
            publisher.ends.onSignOut("s1");
            assertThat(publisher.outbox.ofSession("sid1")).hasSize(1);
            assertThat(publisher.outbox.ofSession("sid2")).isEmpty();
            publisher.ends.runPending();
            assertThat(publisher.outbox.ofSession("sid2")).hasSize(1);
        }
    }

    @Test
    void sessionsThatExpireWhileTheDatabaseIsUnreachableAreNotLost() {
        TestDatabase database = TestDatabase.withTables();
        try (TestPublisher publisher = new TestPublisher(folder, new JdbcSessionClientStore(database, "node", null), false)) {
            publisher.addSession(SessionStores.toSid("s1"), "sid1");
            publisher.addSession(SessionStores.toSid("s2"), "sid2");
            database.disconnect();
            publisher.ends.onApplicationEvent(expired("s1"));
            publisher.ends.onApplicationEvent(expired("s2"));
            publisher.ends.runPending();
            database.recover();
            publisher.ends.runPending();
            assertThat(publisher.outbox.events()).extracting(each -> each.get("sid").asText()).containsExactlyInAnyOrder("sid1", "sid2");
        }
    }

    @Test
    void aSessionWithoutClientsEndsWithoutTheDatabase() {
        TestDatabase database = TestDatabase.withTables();
        try (TestPublisher publisher = new TestPublisher(folder, new JdbcSessionClientStore(database, "node", null), false)) {
            publisher.addSession(SessionStores.toSid("s1"), "sid1"); // would be published if the store were called
            publisher.ends.onApplicationEvent(new HttpSessionDestroyedEvent(new MockHttpSession(null, "s1")));
            publisher.ends.runPending();
            assertThat(publisher.outbox.events()).isEmpty();
        }
    }

    @Test
    void aRowThatIsWrittenAfterTheEndIsPublished() {
        try (TestPublisher publisher = new TestPublisher(folder, store, false)) {
            publisher.ends.onSignOut("s1");
            publisher.ends.add(TestPublisher.row(SessionStores.toSid("s1"), "sid1", "shop"));
            assertThat(publisher.outbox.ofSession("sid1")).hasSize(1);
            assertThat(store.findSessionsAfter(SessionClientStore.FIRST_KEY)).isEmpty();
        }
    }

    @Test
    void rowsThatAreMovedAfterTheEndArePublished() {
        TestDatabase database = TestDatabase.withTables();
        try (TestPublisher publisher = new TestPublisher(folder, new JdbcSessionClientStore(database, "node", null), false)) {
            publisher.addSession(SessionStores.toSid("s1"), "sid1");
            database.disconnect();
            publisher.ends.onIdChanged("s1", "s2");
            database.recover();
            publisher.ends.onSignOut("s2");
            assertThat(publisher.outbox.events()).as("its rows have the former id").isEmpty();
            publisher.ends.runPending();
            assertThat(publisher.outbox.ofSession("sid1")).hasSize(1);
        }
    }

    @Test
    void aRowWithTheFormerIdOfASessionFollowsIt() throws Exception {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            publisher.addSession("s1", "sid1");
            String[] changed = new String[1];
            filter(publisher, request("s1"), request -> changed[0] = request.changeSessionId());
            publisher.living.remove("s1");
            publisher.living.add(changed[0]);
            publisher.ends.add(TestPublisher.row("s1", "sid1", "late"));
            assertThat(store.findBySession(changed[0])).hasSize(3);
            store.add(TestPublisher.row("s1", "sid1", "later")); // as if it was written before the change, and read by the sweep
            sweep(publisher).sweep();
            assertThat(store.findBySession(changed[0])).hasSize(4);
            assertThat(publisher.outbox.events()).as("the session continues").isEmpty();
        }
    }

    @Test
    void aSessionHasABoundedNumberOfEventsInOneFile() throws Exception {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            for (int issuer = 0; issuer < 103; issuer++) {
                publisher.ends.add(new SessionClient("s1", "sid1", "shop", "https://" + issuer + ".example.com", "alice", issuer, SessionClient.SHARED));
            }
            assertThat(publisher.outbox.ofSession("sid1")).as("the oldest").extracting(each -> each.get("iss").asText())
                    .containsExactlyInAnyOrder("https://0.example.com", "https://1.example.com", "https://2.example.com");
            publisher.ends.publish("s1", Lane.EVENTS, null);
            assertThat(publisher.outbox.ofSession("sid1")).hasSize(103);
            try (Stream<Path> files = Files.walk(folder)) {
                assertThat(files.map(each -> each.toString().replaceFirst("\\.[a-z]+$", "")).filter(each -> each.endsWith("-events-100")).distinct()).hasSize(1);
            }
        }
    }

    @Test
    void aSessionThatCannotBePublishedIsTriedAgainAtGrowingIntervals() {
        String unusable = SessionStores.toSid("s1");
        AtomicBoolean isFailing = new AtomicBoolean(true);
        AtomicInteger attempts = new AtomicInteger();
        SessionClientStore failing = failing(key -> {
            attempts.addAndGet(key.equals(unusable) ? 1 : 0);
            return key.equals(unusable) && isFailing.get() ? new IllegalStateException() : null;
        });
        try (TestPublisher publisher = new TestPublisher(folder, failing, false)) {
            publisher.addSession(unusable, "sid1");
            publisher.addSession(SessionStores.toSid("s2"), "sid2");
            publisher.ends.onApplicationEvent(expired("s1"));
            publisher.ends.onApplicationEvent(expired("s2"));
            List<Integer> attemptsByCall = IntStream.range(0, 1_024).map(call -> {
                publisher.ends.runPending();
                return attempts.getAndSet(0);
            }).boxed().toList();
            assertThat(IntStream.rangeClosed(1, 1_024).filter(call -> attemptsByCall.get(call - 1) > 0)).containsExactly(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024);
            assertThat(publisher.outbox.events()).extracting(each -> each.get("sid").asText()).containsExactly("sid2");
            isFailing.set(false);
            IntStream.range(0, 512).forEach(call -> publisher.ends.runPending());
            assertThat(publisher.outbox.ofSession("sid1")).hasSize(1);
        }
    }

    private SessionClientStore failing(Function<String, Throwable> failure) {
        return (SessionClientStore) Proxy.newProxyInstance(getClass().getClassLoader(), new Class<?>[] {SessionClientStore.class}, (proxy, method, values) -> {
            Throwable thrown = method.getName().equals("findBySession") ? failure.apply((String) values[0]) : null;
            if (thrown != null) {
                throw thrown;
            }
            return method.invoke(store, values);
        });
    }

    private SessionClientStore failingFor(String sessionKey, Class<? extends Throwable> failure) {
        return failing(key -> key.equals(sessionKey) ? BeanUtils.instantiateClass(failure) : null);
    }

    @ParameterizedTest
    @ValueSource(classes = {IllegalStateException.class, NoClassDefFoundError.class})
    void aSharedSessionThatCannotBePublishedStopsNoOther(Class<? extends Throwable> failure) {
        try (TestPublisher publisher = new TestPublisher(folder, failingFor("s1", failure), true)) {
            publisher.addSession("s1", "sid1");
            publisher.addSession("s2", "sid2");
            publisher.living.clear();
            sweep(publisher).sweep();
            assertThat(publisher.outbox.events()).extracting(each -> each.get("sid").asText()).containsExactly("sid2");
        }
    }

    @Test
    void aSharedSessionThatCannotBeReadStopsNoOther() {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            publisher.addSession("s1", "sid1");
            publisher.addSession("s2", "sid2");
            SessionStores unreadable = new SessionStores(store, id -> {
                if (id.equals("s1")) {
                    throw new IllegalStateException("its attributes are of a former version");
                }
                return true;
            }, publisher.stores.calls());
            SessionEndPublisher ends = new SessionEndPublisher(unreadable, publisher.publisher, publisher.entries);
            new SessionSweep(unreadable, null, publisher.publisher, ends, INTERVAL).sweep();
            assertThat(publisher.outbox.events()).extracting(each -> each.get("sid").asText()).containsExactly("sid2");
        }
    }

    @ParameterizedTest
    @ValueSource(classes = {IllegalStateException.class, NoClassDefFoundError.class})
    void aSessionThatCannotBePublishedStopsNoOther(Class<? extends Throwable> failure) {
        try (TestPublisher publisher = new TestPublisher(folder, failingFor(SessionStores.toSid("s1"), failure), false)) {
            publisher.addSession(SessionStores.toSid("s2"), "sid2");
            publisher.ends.onApplicationEvent(expired("s1"));
            publisher.ends.onApplicationEvent(expired("s2"));
            publisher.ends.runPending();
            assertThat(publisher.outbox.ofSession("sid2")).hasSize(1);
        }
    }

    @Test
    void aRequestThatEndsWithAnErrorOfTheStoreIsAnswered() throws Exception {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            boolean[] isUnreachable = {false};
            MockHttpServletRequest request = new MockHttpServletRequest("GET", "/") {
                @Override
                public HttpSession getSession(boolean create) {
                    if (isUnreachable[0]) {
                        throw new IllegalStateException("the store of sessions is unreachable");
                    }
                    return super.getSession(create);
                }
            };
            MockHttpSession session = new MockHttpSession(null, "s1");
            session.setNew(false);
            request.setSession(session);
            filter(publisher, request, inner -> {
                inner.getSession();
                isUnreachable[0] = true;
            });
        }
    }

    @Test
    void aStopInterruptsNoQuery() throws Exception {
        TestDatabase database = TestDatabase.withTables();
        try (TestPublisher publisher = new TestPublisher(folder, new JdbcSessionClientStore(database, "node", null), false)) {
            publisher.publisher.stop();
            SessionSweep sweep = new SessionSweep(publisher.stores, null, publisher.publisher, publisher.ends, Duration.ofMillis(1));
            sweep.start();
            database.hang();
            database.awaitCall();
            sweep.stop();
            assertThat(database.isInterrupted()).isFalse();
            database.recover();
        }
    }

    @Test
    void anEventOfASharedStoreIsLeftToTheFilterAndTheSweep() {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            publisher.addSession("s1", "sid1");
            publisher.living.clear();
            publisher.ends.onApplicationEvent(new HttpSessionDestroyedEvent(new MockHttpSession(null, "s1")));
            assertThat(publisher.outbox.await("sid1", Duration.ofMillis(300))).as("each process receives it").isEmpty();
            sweep(publisher).sweep();
            assertThat(publisher.outbox.ofSession("sid1")).hasSize(1);
        }
    }

    @Test
    void anEventOfTheContainerMovesTheRows() {
        try (TestPublisher publisher = new TestPublisher(folder, store, false)) {
            publisher.addSession(SessionStores.toSid("old"), "sid1");
            publisher.ends.onApplicationEvent(new HttpSessionIdChangedEvent(new MockHttpSession(null, "new"), "old"));
            assertThat(store.findBySession(SessionStores.toSid("new"))).hasSize(2);
        }
    }

    @Test
    void theSweepPublishesSessionsThatTheStoreDoesNotHave() {
        try (TestPublisher publisher = new TestPublisher(folder, store, true)) {
            publisher.addSession("s1", "sid1");
            publisher.addSession("s2", "sid2");
            publisher.living.remove("s1");
            sweep(publisher).sweep();
            assertThat(publisher.outbox.events()).extracting(each -> each.get("sid").asText()).containsExactly("sid1");
        }
    }

    @Test
    void theSweepPublishesASessionThatAnAdministratorExpiresOnce() {
        try (TestPublisher publisher = new TestPublisher(folder, store, false)) {
            SessionRegistryImpl registry = new SessionRegistryImpl();
            registry.registerNewSession("s1", "alice");
            registry.registerNewSession("s2", "alice");
            publisher.addSession(SessionStores.toSid("s1"), "sid1");
            publisher.addSession(SessionStores.toSid("s2"), "sid2");
            SessionSweep sweep = new SessionSweep(publisher.stores, registry, publisher.publisher, publisher.ends, INTERVAL);
            registry.getSessionInformation("s1").expireNow();
            sweep.sweep();
            sweep.sweep();
            assertThat(publisher.outbox.events()).extracting(each -> each.get("sid").asText()).containsExactly("sid1");
        }
    }

    @Test
    void theSweepPublishesTheSessionsInTheMemoryOfAnEndedProcess() {
        TestDatabase database = TestDatabase.withTables();
        JdbcSessionClientStore ended = new JdbcSessionClientStore(database, "ended", null);
        ended.add(new SessionClient("s1", "sid1", "shop", TestPublisher.ISSUER, "alice", 1, "ended"));
        try (TestPublisher publisher = new TestPublisher(folder, new JdbcSessionClientStore(database, "living", null), false)) {
            sweep(publisher).sweep();
            assertThat(publisher.outbox.events()).as("it may still be alive").isEmpty();
            ended.removeNode("ended");
            sweep(publisher).sweep();
            assertThat(publisher.outbox.ofSession("sid1")).hasSize(1);
        }
    }

    @Test
    void aSignOutContinuesWhileTheDatabaseHangsAndIsPublishedLater() {
        TestDatabase database = TestDatabase.withTables();
        try (TestPublisher publisher = new TestPublisher(folder, new JdbcSessionClientStore(database, "node", null), false)) {
            publisher.addSession(SessionStores.toSid("s1"), "sid1");
            publisher.addSession(SessionStores.toSid("s2"), "sid2");
            database.hang();
            publisher.ends.onSignOut("s1");
            database.disconnect();
            database.release();
            publisher.ends.onSignOut("s2");
            database.recover();
            long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
            while (publisher.outbox.events().size() < 2 && System.nanoTime() < deadline) { // the first call fails on its own thread
                publisher.ends.runPending();
            }
            assertThat(publisher.outbox.events()).extracting(each -> each.get("sid").asText()).containsExactlyInAnyOrder("sid1", "sid2");
        }
    }

    @Test
    void anUnreachableDatabaseKeepsTheOrderOfAnIdAndItsEnd() {
        TestDatabase database = TestDatabase.withTables();
        try (TestPublisher publisher = new TestPublisher(folder, new JdbcSessionClientStore(database, "node", null), false)) {
            publisher.addSession(SessionStores.toSid("s1"), "sid1");
            database.disconnect();
            publisher.ends.onIdChanged("s1", "s2");
            publisher.ends.onSignOut("s2");
            publisher.ends.runPending();
            database.recover();
            assertThat(publisher.outbox.events()).isEmpty();
            publisher.ends.runPending();
            assertThat(publisher.outbox.ofSession("sid1")).hasSize(1);
        }
    }

    @Test
    void aRepositoryThatDependsOnTheIssuerFindsTheClient() {
        ClientEntryFactory entries = new ClientEntryFactory(new RepositoryByIssuer(), AuthorizationServerSettings.builder().build(), true);
        assertThat(entries.create(TestPublisher.row("s1", "sid1", "shop")).has("backchannel_logout_uri")).isTrue();
        SessionClient other = new SessionClient("s1", "sid1", "shop", "https://other.example.com", "alice", 1, SessionClient.SHARED);
        assertThat(entries.create(other).toString()).as("a client that cannot be read").isEqualTo("{\"client_id\":\"shop\",\"sub\":\"alice\"}");
    }

    /** A session whose last request is long ago. */
    private static final class ExpiredSession extends MockHttpSession {
        private ExpiredSession(String id) {
            super(null, id);
            setMaxInactiveInterval(1);
            setAttribute(SessionEndPublisher.HAS_CLIENTS, true);
        }

        @Override
        public long getLastAccessedTime() {
            return 0;
        }
    }

    private static final class RepositoryByIssuer implements RegisteredClientRepository {
        @Override
        public void save(RegisteredClient client) {
            throw new UnsupportedOperationException();
        }

        @Override
        public RegisteredClient findById(String id) {
            throw new UnsupportedOperationException();
        }

        @Override
        public RegisteredClient findByClientId(String clientId) {
            if (!AuthorizationServerContextHolder.getContext().getIssuer().equals(TestPublisher.ISSUER)) {
                throw new IllegalStateException("unknown issuer");
            }
            return TestPublisher.client(clientId);
        }
    }
}
