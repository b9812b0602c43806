package dev.notifier.spring;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.tuple;

import java.nio.file.Path;
import java.security.Principal;
import java.time.Instant;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.springframework.mock.web.MockHttpServletRequest;
import org.springframework.mock.web.MockHttpSession;
import org.springframework.security.authentication.TestingAuthenticationToken;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.oauth2.core.endpoint.OAuth2AuthorizationRequest;
import org.springframework.security.oauth2.server.authorization.OAuth2Authorization;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationCode;
import org.springframework.security.oauth2.server.authorization.context.AuthorizationServerContext;
import org.springframework.security.oauth2.server.authorization.context.AuthorizationServerContextHolder;
import org.springframework.security.oauth2.server.authorization.settings.AuthorizationServerSettings;
import org.springframework.web.context.request.RequestContextHolder;
import org.springframework.web.context.request.ServletRequestAttributes;

class SessionRecorderTest {
    private static final String ISSUER = TestPublisher.ISSUER;
    private static final String OTHER_ISSUER = "https://other.example.com";

    @TempDir
    Path folder;

    private final TestDatabase database = TestDatabase.withTables();
    private final JdbcSessionClientStore store = new JdbcSessionClientStore(database, "node", null);
    private final CountDownLatch lost = new CountDownLatch(1);
    private TestPublisher publisher;
    private SessionRecorder recorder;

    private record Context(String getIssuer) implements AuthorizationServerContext {
        @Override
        public AuthorizationServerSettings getAuthorizationServerSettings() {
            return AuthorizationServerSettings.builder().build();
        }
    }

    @BeforeEach
    void start() {
        publisher = new TestPublisher(folder.resolve("own"), store, false);
        recorder = recorder(publisher);
    }

    @AfterEach
    void close() {
        publisher.close();
        AuthorizationServerContextHolder.resetContext();
        RequestContextHolder.resetRequestAttributes();
    }

    private SessionRecorder recorder(TestPublisher target) {
        return new SessionRecorder(target.stores, target.ends, true, count -> lost.countDown());
    }

    private static OAuth2Authorization authorization(String client) {
        return OAuth2Authorization.withRegisteredClient(TestPublisher.client(client)).principalName("alice")
                .authorizationGrantType(AuthorizationGrantType.AUTHORIZATION_CODE)
                .attribute(Principal.class.getName(), new TestingAuthenticationToken("alice", null))
                .attribute(OAuth2AuthorizationRequest.class.getName(),
                        OAuth2AuthorizationRequest.authorizationCode().clientId(client).authorizationUri("https://id.example.com/authorize").build())
                .token(new OAuth2AuthorizationCode("code", Instant.now(), Instant.now().plusSeconds(60))).build();
    }

    private OAuth2Authorization record(SessionRecorder target, String client, String issuer, String sessionId) {
        AuthorizationServerContextHolder.setContext(new Context(issuer));
        MockHttpServletRequest request = new MockHttpServletRequest();
        request.setSession(new MockHttpSession(null, sessionId));
        RequestContextHolder.setRequestAttributes(new ServletRequestAttributes(request));
        return target.recordCode(authorization(client));
    }

    @Test
    void eachCodeHasTheSidOfItsSession() {
        OAuth2Authorization first = record(recorder, "shop", ISSUER, "session-a");
        OAuth2Authorization second = record(recorder, "shop", ISSUER, "session-b");
        OAuth2Authorization third = record(recorder, "mail", ISSUER, "session-a");
        assertThat(first.<String>getAttribute(SessionRecorder.SID)).isEqualTo(SessionStores.toSid("session-a")).isEqualTo(third.getAttribute(SessionRecorder.SID));
        assertThat(second.<String>getAttribute(SessionRecorder.SID)).isEqualTo(SessionStores.toSid("session-b"));
        assertThat(store.findBySession(SessionStores.toSid("session-a"))).extracting(SessionClient::clientId).containsExactly("mail", "shop");
    }

    @Test
    void aSessionInMemoryIsNotStoredByItsId() {
        record(recorder, "shop", ISSUER, "session-a");
        assertThat(database.template().queryForList("SELECT * FROM notifier_session_client").toString()).doesNotContain("session-a");
    }

    @Test
    void eachIssuerHasItsRow() {
        OAuth2Authorization first = record(recorder, "shop", ISSUER, "session-a");
        record(recorder, "shop", OTHER_ISSUER, "session-a");
        recorder.recordIdToken(first, "shop", ISSUER, "pairwise");
        assertThat(store.findBySession(SessionStores.toSid("session-a"))).extracting(SessionClient::iss, SessionClient::sub)
                .containsExactlyInAnyOrder(tuple(ISSUER, "pairwise"), tuple(OTHER_ISSUER, "alice"));
    }

    @Test
    void aCodeIsRefusedAfterTheEndOfItsSession() {
        OAuth2Authorization code = record(recorder, "shop", ISSUER, "session-a");
        store.delete(store.findBySession(SessionStores.toSid("session-a")));
        assertThatThrownBy(() -> recorder.recordIdToken(code, "shop", ISSUER, "alice")).isInstanceOfSatisfying(OAuth2AuthenticationException.class,
                failure -> assertThat(failure.getError().getErrorCode()).isEqualTo("invalid_grant"));
        assertThat(store.findBySession(SessionStores.toSid("session-a"))).isEmpty();
    }

    @Test
    void aCodeIsRefusedAfterTheEndOfItsSharedSessionThatNobodyHasReported() {
        try (TestPublisher other = new TestPublisher(folder.resolve("shared"), store, true)) {
            SessionRecorder shared = recorder(other);
            other.living.add("session-a");
            OAuth2Authorization code = record(shared, "shop", ISSUER, "session-a");
            shared.recordIdToken(code, "shop", ISSUER, "alice");
            other.living.clear();
            assertThatThrownBy(() -> shared.recordIdToken(code, "shop", ISSUER, "alice")).isInstanceOf(OAuth2AuthenticationException.class);
            assertThat(store.findBySession("session-a")).as("rows that the sweep publishes").hasSize(1);
        }
    }

    @Test
    void aCodeIsAcceptedWhileItsSharedSessionGetsAnotherId() {
        try (TestPublisher other = new TestPublisher(folder.resolve("shared"), store, true)) {
            SessionRecorder shared = recorder(other);
            OAuth2Authorization code = record(shared, "shop", ISSUER, "session-a");
            other.ends.onIdChanging("session-a", "session-b"); // its rows have the former id until the request ends
            other.living.add("session-b");
            shared.recordIdToken(code, "shop", ISSUER, "alice");
            other.ends.onIdChanged("session-a", "session-b");
            shared.recordIdToken(code, "shop", ISSUER, "alice");
            other.living.clear();
            assertThatThrownBy(() -> shared.recordIdToken(code, "shop", ISSUER, "alice")).isInstanceOf(OAuth2AuthenticationException.class);
        }
    }

    @Test
    void aClientThatReachesTheServerByAnotherHostIsKnownByItsIssuer() {
        OAuth2Authorization first = record(recorder, "shop", ISSUER, "session-a");
        OAuth2Authorization second = record(recorder, "shop", ISSUER, "session-a");
        recorder.recordIdToken(first, "shop", OTHER_ISSUER, "pairwise");
        recorder.recordIdToken(second, "shop", OTHER_ISSUER, "pairwise");
        assertThat(store.findBySession(SessionStores.toSid("session-a"))).extracting(SessionClient::iss, SessionClient::sub)
                .containsExactly(tuple(OTHER_ISSUER, "pairwise"));
        publisher.ends.onSignOut("session-a");
        assertThatThrownBy(() -> recorder.recordIdToken(second, "shop", OTHER_ISSUER, "pairwise")).isInstanceOf(OAuth2AuthenticationException.class);
    }

    @Test
    void aCodeWhoseRowWasNotWrittenIsRefusedAfterTheEndOfItsSession() {
        database.disconnect();
        OAuth2Authorization code = record(recorder, "shop", ISSUER, "session-a");
        database.recover();
        publisher.ends.onSignOut("session-a");
        assertThatThrownBy(() -> recorder.recordIdToken(code, "shop", ISSUER, "alice")).isInstanceOf(OAuth2AuthenticationException.class);
        assertThat(store.findBySession(SessionStores.toSid("session-a"))).isEmpty();
    }

    @Test
    void aCodeThatCannotBeRecordedFailsNoSignInAndTheLossIsCounted() {
        OAuth2Authorization code = authorization("shop");
        assertThat(recorder.recordCode(code)).as("without a request of Spring").isSameAs(code);
        assertThat(lost.getCount()).isZero();
        record(recorder, "shop", ISSUER, "session-a");
        AuthorizationServerContextHolder.resetContext();
        assertThat(recorder.recordCode(code)).as("outside of the server's endpoints").isSameAs(code);
    }

    @Test
    void aCodeOfAnotherProcessWithItsRowsInMemoryIsAccepted() {
        try (TestPublisher elsewhere = new TestPublisher(folder.resolve("elsewhere"), new InMemorySessionClientStore(), false)) {
            OAuth2Authorization code = record(recorder(elsewhere), "shop", ISSUER, "session-a");
            recorder.recordIdToken(code, "shop", ISSUER, "alice");
            assertThat(store.findSessionsAfter("")).isEmpty();
        }
    }

    @Test
    void aSignInContinuesWhileTheDatabaseHangsAndTheRowIsWrittenAtTheIdToken() {
        database.hang();
        OAuth2Authorization code = record(recorder, "shop", ISSUER, "session-a");
        database.recover();
        recorder.recordIdToken(code, "shop", ISSUER, "pairwise");
        assertThat(store.findBySession(SessionStores.toSid("session-a"))).extracting(SessionClient::sub).containsExactly("pairwise");
        assertThat(lost.getCount()).isEqualTo(1);
    }

    @Test
    void anUnreachableDatabaseFailsNoSignInAndTheLossIsCounted() throws InterruptedException {
        database.disconnect();
        OAuth2Authorization code = record(recorder, "shop", ISSUER, "session-a");
        assertThat(code.<String>getAttribute(SessionRecorder.SID)).isEqualTo(SessionStores.toSid("session-a"));
        assertThat(lost.getCount()).isEqualTo(1);
        recorder.recordIdToken(code, "shop", ISSUER, "alice");
        assertThat(lost.await(10, TimeUnit.SECONDS)).isTrue();
    }

    @Test
    void manyLossesOfOneCauseMakeOneLineAndAreAllCounted() {
        AtomicInteger count = new AtomicInteger();
        SessionRecorder outside = new SessionRecorder(publisher.stores, publisher.ends, true, count::addAndGet);
        try (CapturedLogs logs = new CapturedLogs()) {
            IntStream.range(0, 100).forEach(each -> outside.recordCode(authorization("client-" + each)));
            assertThat(logs.text()).containsOnlyOnce("is LOST").contains("client-0");
        }
        assertThat(count).hasValue(100);
    }

    @Test
    void theAttributesAreTextsThatEveryServiceOfAuthorizationsStores() {
        Map<String, Object> attributes = record(recorder, "shop", ISSUER, "session-a").getAttributes();
        assertThat(attributes.entrySet().stream().filter(each -> each.getKey().startsWith("notifier."))).hasSize(5)
                .allSatisfy(each -> assertThat(each.getValue()).isInstanceOf(String.class));
    }

    @Test
    void aRefreshTokenEndsWithTheRowsOfItsSession() {
        OAuth2Authorization first = record(recorder, "shop", ISSUER, "session-a");
        OAuth2Authorization second = record(recorder, "shop", ISSUER, "session-b");
        assertThat(recorder.isRefreshTokenEnded(first)).isFalse();
        store.move(SessionStores.toSid("session-a"), SessionStores.toSid("session-c"));
        assertThat(recorder.isRefreshTokenEnded(first)).as("the session has another id").isFalse();
        store.delete(store.findBySession(SessionStores.toSid("session-c")));
        AuthorizationServerContextHolder.setContext(new Context(OTHER_ISSUER));
        assertThat(recorder.isRefreshTokenEnded(first)).isTrue();
        assertThat(recorder.isRefreshTokenEnded(second)).isFalse();
        assertThat(recorder.isRefreshTokenEnded(OAuth2Authorization.from(first).authorizedScopes(Set.of("openid", "offline_access")).build())).isFalse();
        assertThat(new SessionRecorder(publisher.stores, publisher.ends, false, count -> lost.countDown()).isRefreshTokenEnded(first)).as("turned off").isFalse();
    }

    @Test
    void aRefreshTokenEndsWithItsSharedSessionBeforeTheSweepFindsIt() {
        try (TestPublisher other = new TestPublisher(folder.resolve("shared"), store, true)) {
            SessionRecorder shared = recorder(other);
            other.living.add("session-a");
            OAuth2Authorization code = record(shared, "shop", ISSUER, "session-a");
            assertThat(shared.isRefreshTokenEnded(code)).isFalse();
            other.living.clear();
            assertThat(shared.isRefreshTokenEnded(code)).isTrue();
        }
    }

    @Test
    void aRefreshTokenOfAClientThatReachesTheServerByAnotherHostContinues() {
        OAuth2Authorization code = record(recorder, "shop", ISSUER, "session-a");
        recorder.recordIdToken(code, "shop", OTHER_ISSUER, "pairwise");
        assertThat(recorder.isRefreshTokenEnded(code)).isFalse();
        publisher.ends.onSignOut("session-a");
        assertThat(recorder.isRefreshTokenEnded(code)).isTrue();
    }

    @Test
    void aRefreshTokenOfAnotherProcessWithItsRowsInMemoryContinues() {
        try (TestPublisher elsewhere = new TestPublisher(folder.resolve("elsewhere"), new InMemorySessionClientStore(), false)) {
            assertThat(recorder.isRefreshTokenEnded(record(recorder(elsewhere), "shop", ISSUER, "session-a"))).isFalse();
        }
    }

    @Test
    void anUnreachableDatabaseNeitherRevokesNorAcceptsARefreshToken() {
        OAuth2Authorization code = record(recorder, "shop", ISSUER, "session-a");
        database.disconnect();
        assertThatThrownBy(() -> recorder.isRefreshTokenEnded(code)).isInstanceOf(IllegalStateException.class).hasMessageNotContaining("s3cret");
        database.recover();
        assertThat(recorder.isRefreshTokenEnded(code)).isFalse();
    }
}
