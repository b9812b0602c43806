package dev.notifier.spring;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.UUID;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.springframework.dao.InvalidDataAccessApiUsageException;
import org.springframework.data.redis.RedisConnectionFailureException;
import org.springframework.data.redis.connection.RedisConnection;
import org.springframework.data.redis.connection.RedisConnectionFactory;
import org.springframework.data.redis.core.RedisTemplate;
import org.springframework.session.MapSessionRepository;
import org.springframework.session.Session;
import org.springframework.session.SessionRepository;
import org.springframework.session.data.redis.RedisSessionRepository;

class RedisSessionsTest {
    @TempDir
    Path folder;

    private static <S extends Session> String add(SessionRepository<S> repository) {
        S session = repository.createSession();
        repository.save(session);
        return session.getId();
    }

    private static <S extends Session> void change(SessionRepository<S> repository, String id, Consumer<Session> change) {
        S session = repository.findById(id);
        change.accept(session);
        repository.save(session);
    }

    private static String commands(RedisConnectionFactory redis, String name) {
        try (RedisConnection connection = redis.getConnection()) {
            return connection.serverCommands().info("commandstats").getProperty("cmdstat_" + name, "calls=0,").replaceFirst("calls=([0-9]+),.*", "$1");
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"redis", "redis-indexed"})
    void theSweepReadsNoLivingSessionAndFindsEachEnd(String profile) throws Exception {
        try (TestServer server = new TestServer(folder, profile, TestServer.database(UUID.randomUUID().toString()), "--notifier.sweep.interval=1h")) {
            SessionStores stores = server.context.getBean(SessionStores.class);
            SessionRepository<?> repository = server.context.getBean(SessionRepository.class);
            assertThat(stores.sessions()).isInstanceOf(RedisSessions.class);
            List<String> ids = new ArrayList<>();
            for (int count = 0; count < 1_200; count++) { // more than a page
                ids.add(add(repository));
                stores.clients().add(TestPublisher.row(ids.get(count), "sid" + count, "shop"));
            }
            RedisConnectionFactory redis = server.context.getBean(RedisConnectionFactory.class);
            SessionSweep sweep = server.context.getBean(SessionSweep.class);
            String readBefore = commands(redis, "hgetall");
            sweep.sweep();
            assertThat(commands(redis, "hgetall")).isEqualTo(readBefore);
            assertThat(server.outbox.events()).isEmpty();

            repository.deleteById(ids.get(3));
            change(repository, ids.get(1_100), session -> session.setMaxInactiveInterval(Duration.ofMillis(1)));
            List<String> ended = new ArrayList<>(List.of("sid3", "sid1100"));
            if (profile.equals("redis-indexed")) { // the default repository has no registry, and never saves a deleted session
                change(repository, ids.get(7), session -> session.setAttribute(SharedSessions.EXPIRED_ATTRIBUTE, true));
                change(repository, ids.get(8), session -> session.setMaxInactiveInterval(Duration.ofSeconds(-1)));
                change(repository, ids.get(9), session -> { // as a request that is in progress meanwhile
                    repository.deleteById(ids.get(9));
                    session.setLastAccessedTime(Instant.now());
                });
                ended.addAll(List.of("sid7", "sid9"));
            }
            sweep.sweep();
            assertThat(server.outbox.events()).extracting(each -> each.get("sid").asText())
                    .containsExactlyInAnyOrderElementsOf(ended);
        }
    }

    @Test
    void aConnectionWithoutSuchQueriesReadsEachSession() {
        SharedSessions each = "ended"::equals;
        int[] attempts = {0};
        RedisTemplate<String, Object> noQueries = new RedisTemplate<>() {
            @Override
            public Long countExistingKeys(Collection<String> keys) {
                attempts[0]++;
                throw new InvalidDataAccessApiUsageException("keys of several slots");
            }
        };
        SharedSessions sessions = RedisSessions.decorate(each, new RedisSessionRepository(noQueries));
        for (int sweep = 0; sweep < 2; sweep++) {
            assertThat(sessions.findEnded(List.of("ended", "living"))).containsExactly("ended");
        }
        assertThat(attempts[0]).isEqualTo(1);
        assertThat(sessions.isEnded("ended")).isTrue();
        assertThat(RedisSessions.decorate(each, new MapSessionRepository(new HashMap<>()))).isSameAs(each);
    }

    @Test
    void anUnreachableRedisEndsNoSession() {
        RedisTemplate<String, Object> unreachable = new RedisTemplate<>() {
            @Override
            public Long countExistingKeys(Collection<String> keys) {
                throw new RedisConnectionFailureException("unreachable");
            }
        };
        SharedSessions sessions = RedisSessions.decorate(id -> true, new RedisSessionRepository(unreachable));
        assertThatThrownBy(() -> sessions.findEnded(List.of("living"))).isInstanceOf(RedisConnectionFailureException.class);
    }
}
