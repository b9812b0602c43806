package dev.notifier.spring;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.time.Duration;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Two processes with sessions in memory, on one database, and a clock that the tests move. */
class NodeObserverTest {
    private final TestDatabase database = TestDatabase.withTables();
    private final JdbcSessionClientStore own = store("own");
    private final JdbcSessionClientStore other = store("other");
    private long now;
    private final NodeObserver observer = new NodeObserver(own, () -> now);

    private JdbcSessionClientStore store(String node) {
        return new JdbcSessionClientStore(database, node, null);
    }

    @BeforeEach
    void addSessionOfOther() {
        other.add(new SessionClient("s1", "sid1", "shop", TestPublisher.ISSUER, "alice", 1, "other"));
    }

    private void observeFor(Duration time) {
        for (long end = now + time.toNanos(); now < end; now += NodeObserver.INTERVAL.toNanos()) {
            observer.observe();
        }
    }

    private void assertEnded(String... sessions) {
        assertThat(own.findSessionsOfEndedNodes(SessionClientStore.FIRST_KEY)).containsExactly(sessions);
    }

    @Test
    void aProcessThatReportsNothingForTwoMinutesHasEnded() {
        observeFor(Duration.ofMinutes(2));
        assertEnded();
        observeFor(Duration.ofSeconds(1));
        assertEnded("s1");
        assertThat(own.findNodes().keySet()).containsExactly("own");
    }

    @Test
    void anOutageOfTheDatabaseEndsNoSession() {
        observeFor(Duration.ofMinutes(1));
        database.disconnect();
        assertThatThrownBy(observer::observe).isInstanceOf(RuntimeException.class);
        now += Duration.ofMinutes(3).toNanos();
        database.recover();
        observeFor(Duration.ofMinutes(1)); // the other process renews its row within this time
        assertEnded();
        other.renewNode();
        observeFor(Duration.ofMinutes(2));
        assertEnded();
    }

    @Test
    void anotherClockEndsNoSession() {
        for (int minute = 0; minute < 5; minute++) {
            database.template().update("UPDATE notifier_node SET seen_at = ? WHERE node = 'other'", 1_000 + minute);
            observeFor(Duration.ofMinutes(1));
        }
        assertEnded();
    }

    @Test
    void aProcessThatCountedAsEndedReportsAgain() {
        observeFor(Duration.ofMinutes(3));
        assertEnded("s1");
        other.renewNode();
        assertEnded();
    }
}
