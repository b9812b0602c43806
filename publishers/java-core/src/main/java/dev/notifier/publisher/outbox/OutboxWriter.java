package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Writes files on separate threads, so that a hanging disk delays no caller beyond the limit. After a failure, writes are refused until a probe succeeds. */
final class OutboxWriter implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger("dev.notifier.publisher.outbox.Writers");
    private static final int THREADS = 8;

    private final ExecutorService threads = Executors.newFixedThreadPool(THREADS, new DaemonThreadFactory("notifier-outbox-writer"));
    private final OutboxFolder folder;
    private final Duration limit;
    private volatile String diskError;

    OutboxWriter(OutboxFolder folder, Duration limit) {
        this.folder = folder;
        this.limit = limit;
    }

    /** Writes the entry durably. Returns null, or an error, after which the entry is only in memory. */
    String write(OutboxEntry entry, String suffix) {
        return diskError != null ? diskError : attempt(entry, suffix);
    }

    boolean isHealthy() {
        return diskError == null;
    }

    /** Writes and removes an empty file. Returns true, and permits writes again, if this succeeds. */
    boolean probe() {
        String error = runWithinLimit(() -> {
            Path probe = folder.write(OutboxFolder.PROBE_PREFIX + System.nanoTime(), "", List.of());
            OutboxFolder.remove(probe);
            return null;
        });
        if (error == null) {
            diskError = null;
            LOG.info("notifier: the outbox takes events again");
        }
        return error == null;
    }

    private String attempt(OutboxEntry entry, String suffix) {
        List<OutgoingEvent> events = entry.inMemory();
        String error = runWithinLimit(() -> {
            Path file = folder.write(entry.name(), suffix, events);
            if (!entry.onWritten(file)) {
                OutboxFolder.remove(file);
            }
            return null;
        });
        if (error == null || !entry.abandonFile()) {
            return null;
        }
        if (!Thread.currentThread().isInterrupted()) { // an interrupted thread proves nothing about the disk
            diskError = error;
        }
        return error;
    }

    /** Returns null, or an error. */
    private String runWithinLimit(Callable<Void> task) {
        try {
            Future<Void> running = threads.submit(task);
            running.get(limit.toMillis(), TimeUnit.MILLISECONDS);
            return null;
        } catch (TimeoutException late) {
            return "the disk did not answer within " + limit.toMillis() + " ms: see to " + folder.path();
        } catch (ExecutionException failed) {
            return describe(failed.getCause());
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
            return "the thread was interrupted while it waited for the disk";
        } catch (RejectedExecutionException closed) {
            return "the process is stopping";
        }
    }

    private String describe(Throwable failure) {
        return "the outbox " + folder.path() + " takes nothing (" + (failure instanceof IOException ? failure.getMessage() : failure.toString())
                + "): see to its owner, its rights and the room on its disk";
    }

    @Override
    public void close() {
        threads.shutdown();
    }
}
