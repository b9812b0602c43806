package dev.notifier.spring;

import java.sql.Connection;
import java.sql.SQLException;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import org.h2.jdbcx.JdbcDataSource;
import org.springframework.core.io.ClassPathResource;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.jdbc.datasource.DelegatingDataSource;
import org.springframework.jdbc.datasource.init.ResourceDatabasePopulator;

/** A database in memory that can hang or be unreachable. */
final class TestDatabase extends DelegatingDataSource {
    private volatile CountDownLatch hanging = new CountDownLatch(0);
    private volatile boolean isReachable = true;
    private volatile boolean isInterrupted;
    private final Semaphore hangingCalls = new Semaphore(0);

    TestDatabase(String... schemas) {
        JdbcDataSource h2 = new JdbcDataSource();
        h2.setURL("jdbc:h2:mem:" + UUID.randomUUID() + ";DB_CLOSE_DELAY=-1");
        h2.setUser("sa");
        setTargetDataSource(h2);
        for (String schema : schemas) {
            new ResourceDatabasePopulator(new ClassPathResource(schema)).execute(h2);
        }
    }

    static TestDatabase withTables() {
        return new TestDatabase("dev/notifier/spring/R__notifier_session_client.sql");
    }

    void hang() {
        hanging = new CountDownLatch(1);
    }

    /** Ends {@link #hang}. */
    void release() {
        hanging.countDown();
    }

    /** Waits until a call hangs. */
    void awaitCall() throws InterruptedException {
        hangingCalls.acquire();
    }

    /** Returns whether a call was interrupted while it hung. */
    boolean isInterrupted() {
        return isInterrupted;
    }

    void recover() {
        isReachable = true;
        release();
    }

    void disconnect() {
        isReachable = false;
    }

    JdbcTemplate template() {
        return new JdbcTemplate(getTargetDataSource());
    }

    @Override
    public Connection getConnection() throws SQLException {
        try {
            if (hanging.getCount() > 0) {
                hangingCalls.release();
            }
            hanging.await();
        } catch (InterruptedException stopped) {
            isInterrupted = true;
            Thread.currentThread().interrupt();
        }
        if (!isReachable) {
            throw new SQLException("unreachable: jdbc:h2:mem with the password s3cret");
        }
        return super.getConnection();
    }
}
