package dev.notifier.spring;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.tuple;

import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Stream;
import liquibase.integration.spring.SpringLiquibase;
import org.flywaydb.core.Flyway;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.springframework.core.io.DefaultResourceLoader;

class SessionClientStoreTest {
    private static final String ISSUER = TestPublisher.ISSUER;

    static Stream<SessionClientStore> stores() {
        return Stream.of(new InMemorySessionClientStore(), shared(TestDatabase.withTables()));
    }

    private static JdbcSessionClientStore shared(TestDatabase database) {
        return new JdbcSessionClientStore(database, SessionClient.SHARED, null);
    }

    @ParameterizedTest
    @MethodSource("stores")
    void aSecondCodeOfAClientChangesNothing(SessionClientStore store) {
        store.add(TestPublisher.row("s1", "sid1", "shop"));
        assertThat(store.update(TestPublisher.row("s1", "sid1", "shop"), ISSUER, "pairwise")).isTrue();
        store.move("s1", "s2");
        store.add(new SessionClient("s1", "sid1", "shop", ISSUER, "alice", 2_000, SessionClient.SHARED)); // of a request that began before the change
        assertThat(store.findBySession("s1")).isEmpty();
        assertThat(store.findBySession("s2")).containsExactly(new SessionClient("s2", "sid1", "shop", ISSUER, "pairwise", 1_000, SessionClient.SHARED));
    }

    @ParameterizedTest
    @MethodSource("stores")
    void theRowsOfAClientAreFoundForAllIssuers(SessionClientStore store) {
        store.add(TestPublisher.row("s1", "sid1", "shop"));
        store.add(new SessionClient("s1", "sid1", "shop", "https://other.example.com", "alice", 2_000, SessionClient.SHARED));
        assertThat(store.find("sid1", "shop")).extracting(SessionClient::iss).containsExactlyInAnyOrder(ISSUER, "https://other.example.com");
        assertThat(store.find("sid1", "mail")).isEmpty();
        assertThat(store.find("sid", "shop")).isEmpty();
    }

    @ParameterizedTest
    @MethodSource("stores")
    void aRowGetsTheIssuerOfTheToken(SessionClientStore store) {
        SessionClient row = TestPublisher.row("s1", "sid1", "shop");
        for (int code = 0; code < 2; code++) { // the second finds a row of the token's issuer
            store.add(row);
            assertThat(store.update(row, "https://internal.example.com", "pairwise")).isTrue();
            assertThat(store.findBySession("s1")).extracting(SessionClient::iss, SessionClient::sub).containsExactly(tuple("https://internal.example.com", "pairwise"));
        }
        assertThat(store.update(row, ISSUER, "alice")).as("a row that does not exist").isFalse();
    }

    @ParameterizedTest
    @MethodSource("stores")
    void theRowsOfASessionMoveToItsNewId(SessionClientStore store) {
        store.add(TestPublisher.row("s1", "sid1", "shop"));
        store.add(TestPublisher.row("s1", "sid1", "mail"));
        store.move("s1", "s2");
        assertThat(store.findBySession("s2")).extracting(SessionClient::clientId).containsExactly("mail", "shop");
        assertThat(store.findBySession("s1")).isEmpty();
    }

    @ParameterizedTest
    @MethodSource("stores")
    void onlyTheNamedRowsAreDeleted(SessionClientStore store) {
        store.add(TestPublisher.row("s1", "sid1", "shop"));
        store.add(TestPublisher.row("s1", "sid1", "mail"));
        store.delete(List.of(TestPublisher.row("s1", "sid1", "mail")));
        assertThat(store.findBySession("s1")).extracting(SessionClient::clientId).containsExactly("shop");
    }

    @ParameterizedTest
    @MethodSource("stores")
    void sessionsAreReadInTheOrderOfTheirKeys(SessionClientStore store) {
        Stream.of("s3", "s1", "s2").forEach(key -> store.add(TestPublisher.row(key, "sid" + key, "shop")));
        assertThat(store.findSessionsAfter("")).containsExactly("s1", "s2", "s3");
        assertThat(store.findSessionsAfter("s2")).containsExactly("s3");
        assertThat(store.findSessionsAfter("s3")).isEmpty();
    }

    @Test
    void aNewProcessAddsItsFirstRowsAtOnce() {
        for (int round = 0; round < 20; round++) {
            JdbcSessionClientStore store = new JdbcSessionClientStore(TestDatabase.withTables(), "node", null);
            List<CompletableFuture<Void>> codes = Stream.of("shop", "shop", "shop", "mail")
                    .map(client -> CompletableFuture.runAsync(() -> store.add(TestPublisher.row("s1", "sid1", client)))).toList();
            codes.forEach(CompletableFuture::join);
            assertThat(store.findBySession("s1")).hasSize(2);
        }
    }

    @Test
    void theSessionsOfAnEndedProcessAreFound() {
        TestDatabase database = TestDatabase.withTables();
        JdbcSessionClientStore ended = new JdbcSessionClientStore(database, "ended", null);
        JdbcSessionClientStore living = new JdbcSessionClientStore(database, "living", null);
        ended.add(new SessionClient("s1", "sid1", "shop", ISSUER, "alice", 1, "ended"));
        living.add(new SessionClient("s2", "sid2", "shop", ISSUER, "alice", 1, "living"));
        assertThat(living.findNodes().keySet()).containsExactlyInAnyOrder("ended", "living");
        assertThat(living.findSessionsOfEndedNodes(" ")).isEmpty();
        ended.removeNode("ended");
        assertThat(living.findSessionsOfEndedNodes(" ")).containsExactly("s1");
        assertThat(living.findSessionsOfEndedNodes("s1")).isEmpty();
    }

    @Test
    void oneQueryLeavesOutTheLivingSessionsOfSpringSession() {
        TestDatabase database = new TestDatabase("dev/notifier/spring/R__notifier_session_client.sql", "org/springframework/session/jdbc/schema-h2.sql");
        JdbcSessionClientStore store = new JdbcSessionClientStore(database, SessionClient.SHARED, "SPRING_SESSION");
        Stream.of("deleted", "expired", "living", "marked").forEach(key -> store.add(TestPublisher.row(key, "sid-" + key, "shop")));
        long now = System.currentTimeMillis();
        Stream.of("expired", "living", "marked").forEach(key -> database.template().update("INSERT INTO SPRING_SESSION (PRIMARY_ID, SESSION_ID, CREATION_TIME,"
                + " LAST_ACCESS_TIME, MAX_INACTIVE_INTERVAL, EXPIRY_TIME) VALUES (?, ?, 0, 0, 60, ?)", key, key, key.equals("expired") ? now - 1 : now + 60_000));
        database.template().update("INSERT INTO SPRING_SESSION_ATTRIBUTES VALUES ('marked', ?, X'00')", SharedSessions.EXPIRED_ATTRIBUTE);
        assertThat(store.findSessionsAfter("")).containsExactly("deleted", "expired", "marked");
    }

    @Test
    void withoutSpringSessionsTableAllSessionsAreRead() {
        JdbcSessionClientStore store = new JdbcSessionClientStore(TestDatabase.withTables(), SessionClient.SHARED, "SPRING_SESSION");
        store.add(TestPublisher.row("s1", "sid1", "shop"));
        assertThat(store.findSessionsAfter("")).containsExactly("s1");
    }

    @Test
    void aMissingTableIsReportedWithTheSchema() {
        assertThatThrownBy(() -> shared(new TestDatabase()).verify()).isInstanceOfSatisfying(NotifierConfigurationException.class,
                failure -> assertThat(failure.remedy()).contains("classpath:dev/notifier/spring/R__notifier_session_client.sql"));
        shared(TestDatabase.withTables()).verify();
    }

    @Test
    void anUnreachableDatabaseDoesNotPreventTheStart() {
        TestDatabase database = TestDatabase.withTables();
        database.disconnect();
        shared(database).verify();
    }

    @Test
    void flywayCreatesTheTables() {
        TestDatabase database = new TestDatabase();
        for (int start = 0; start < 2; start++) {
            Flyway.configure().dataSource(database).locations("classpath:dev/notifier/spring").load().migrate();
        }
        shared(database).verify();
    }

    @Test
    void liquibaseCreatesTheTables() throws Exception {
        TestDatabase database = new TestDatabase();
        for (int start = 0; start < 2; start++) {
            SpringLiquibase liquibase = new SpringLiquibase();
            liquibase.setDataSource(database);
            liquibase.setResourceLoader(new DefaultResourceLoader());
            liquibase.setChangeLog("classpath:dev/notifier/spring/R__notifier_session_client.sql");
            liquibase.afterPropertiesSet();
        }
        shared(database).verify();
    }
}
