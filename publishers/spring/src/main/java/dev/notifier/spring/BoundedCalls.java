package dev.notifier.spring;

import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import dev.notifier.publisher.monitoring.LogThrottle;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Calls the database on separate threads, so that a browser's request waits for it at most 2 s. */
final class BoundedCalls {
    private static final Logger LOG = LoggerFactory.getLogger(BoundedCalls.class);
    static final Duration LIMIT = Duration.ofSeconds(2);
    private static final int THREAD_COUNT = 8;
    private static final int MAX_QUEUED_CALLS = 1_000;
    private static final long IDLE_THREAD_SECONDS = 30;

    private final ThreadPoolExecutor threads = new ThreadPoolExecutor(THREAD_COUNT, THREAD_COUNT, IDLE_THREAD_SECONDS, TimeUnit.SECONDS,
            new ArrayBlockingQueue<>(MAX_QUEUED_CALLS), new DaemonThreadFactory("notifier-database"));
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));

    BoundedCalls() {
        threads.allowCoreThreadTimeOut(true);
    }

    /** Starts a call. It continues after the limit. */
    <T> CompletableFuture<T> start(Supplier<T> call) {
        try {
            return CompletableFuture.supplyAsync(call, threads);
        } catch (RejectedExecutionException full) {
            return CompletableFuture.failedFuture(full);
        }
    }

    /** Runs a task. Returns whether it has ended within the limit. It continues after that. */
    boolean tryRun(Runnable task) {
        return await(start(() -> {
            task.run();
            return true;
        })).isPresent();
    }

    /** Returns the result of a call; empty if it fails or does not end within the limit, which is logged. */
    <T> Optional<T> await(CompletableFuture<T> call) {
        try {
            return Optional.ofNullable(call.get(LIMIT.toMillis(), TimeUnit.MILLISECONDS));
        } catch (TimeoutException slow) {
            report("has not answered for " + LIMIT.toSeconds() + " s");
        } catch (ExecutionException failure) {
            report("fails: " + name(failure));
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
        return Optional.empty();
    }

    private void report(String failure) {
        if (throttle.tryAcquire(failure)) {
            LOG.error("notifier: the database of sessions and clients {}; sign-ins and sign-outs continue without it, and what is missing is written later", failure);
        }
    }

    /** Returns the class of a failure without its message, which may contain the database's URL with a password. */
    static String name(Throwable failure) {
        boolean isWrapped = (failure instanceof CompletionException || failure instanceof ExecutionException) && failure.getCause() != null;
        return (isWrapped ? failure.getCause() : failure).getClass().getName();
    }
}
