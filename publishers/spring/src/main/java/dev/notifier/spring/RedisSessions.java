package dev.notifier.spring;

import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Predicate;
import java.util.stream.IntStream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.dao.InvalidDataAccessApiUsageException;
import org.springframework.data.redis.core.RedisOperations;
import org.springframework.data.redis.core.SessionCallback;
import org.springframework.session.SessionRepository;
import org.springframework.session.data.redis.RedisIndexedSessionRepository;
import org.springframework.session.data.redis.RedisSessionRepository;

/**
 * Spring Session Redis: the sweep reads a page of sessions at once, from what Spring Session documents.
 *
 * The key of a session in the default repository expires with it: a query counts the keys of a page, and a pipeline reads each if any is missing.
 * In the indexed repository the session's hash is kept for 5 more minutes, and a request that was in progress when the session was deleted writes
 * both keys again. There a pipeline reads the times and the mark of `expireNow()`.
 */
final class RedisSessions implements SharedSessions {
    private static final Logger LOG = LoggerFactory.getLogger(RedisSessions.class);
    private static final List<Object> FIELDS = List.of("lastAccessedTime", "maxInactiveInterval", "sessionAttr:" + EXPIRED_ATTRIBUTE);
    private static final String CONSEQUENCE = "the sweep reads each session";

    private final SharedSessions target;
    private final RedisOperations<String, Object> redis;
    private final String keyPrefix;
    private final boolean isIndexed;
    private volatile boolean isUsable = true;

    private RedisSessions(SharedSessions target, RedisOperations<String, Object> redis, String namespace, boolean isIndexed) {
        this.target = target;
        this.redis = redis;
        this.keyPrefix = namespace + "sessions:";
        this.isIndexed = isIndexed;
    }

    /** Returns the sessions of the repository, read by pages if it is one of Redis. */
    static SharedSessions decorate(SharedSessions target, SessionRepository<?> repository) {
        if (repository instanceof RedisIndexedSessionRepository indexed) {
            return create(target, indexed, "namespace", indexed.getSessionRedisOperations());
        }
        return repository instanceof RedisSessionRepository plain ? create(target, plain, "keyNamespace", plain.getSessionRedisOperations()) : target;
    }

    private static SharedSessions create(SharedSessions target, SessionRepository<?> repository, String field, RedisOperations<String, Object> redis) {
        Optional<String> namespace = PrivateField.read(repository, field, CONSEQUENCE);
        return namespace.isPresent() ? new RedisSessions(target, redis, namespace.get(), repository instanceof RedisIndexedSessionRepository) : target;
    }

    @Override
    public boolean isEnded(String sessionId) {
        return target.isEnded(sessionId);
    }

    @Override
    public List<String> findEnded(List<String> sessionIds) {
        if (isUsable) {
            try {
                return query(sessionIds);
            } catch (UnsupportedOperationException | InvalidDataAccessApiUsageException cluster) {
                isUsable = false;
                LOG.info("notifier: this connection to Redis cannot read several keys at once, so {}", CONSEQUENCE);
            }
        }
        return target.findEnded(sessionIds);
    }

    private List<String> query(List<String> sessionIds) {
        List<String> keys = sessionIds.stream().map(id -> keyPrefix + id).toList();
        if (!isIndexed) {
            Long livingCount = redis.countExistingKeys(keys);
            return livingCount != null && livingCount == keys.size() ? List.of() : select(sessionIds, inPipeline(keys, redis::hasKey), Boolean.FALSE::equals);
        }
        long now = System.currentTimeMillis();
        return select(sessionIds, inPipeline(keys, key -> redis.opsForHash().multiGet(key, FIELDS)), answer -> isEnded((List<?>) answer, now));
    }

    private static boolean isEnded(List<?> fields, long now) {
        if (!(fields.get(0) instanceof Number lastAccessedAt && fields.get(1) instanceof Number limitSeconds)) {
            return true;
        }
        return Boolean.TRUE.equals(fields.get(2)) || limitSeconds.longValue() >= 0 && now - TimeUnit.SECONDS.toMillis(limitSeconds.longValue()) >= lastAccessedAt.longValue();
    }

    private static List<String> select(List<String> sessionIds, List<Object> answers, Predicate<Object> isEnded) {
        return IntStream.range(0, sessionIds.size()).filter(each -> isEnded.test(answers.get(each))).mapToObj(sessionIds::get).toList();
    }

    private List<Object> inPipeline(List<String> keys, Consumer<String> command) {
        return redis.executePipelined(new SessionCallback<Object>() {
            @Override
            public <K, V> Object execute(RedisOperations<K, V> connection) {
                keys.forEach(command);
                return null;
            }
        });
    }
}
