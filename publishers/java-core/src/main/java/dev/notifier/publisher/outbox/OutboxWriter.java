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

/**
 * Writes files on separate threads, so that a hanging disk delays no caller beyond the limit. After a failed write, further ones
 * are refused until a probe succeeds. Entries are set aside on one more thread, so that they delay no sign-out.
 */
final class OutboxWriter implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger("dev.notifier.publisher.outbox.Writers");
    private static final int THREADS = 8;

    private final ExecutorService threads = Executors.newFixedThreadPool(THREADS, new DaemonThreadFactory("notifier-outbox-writer"));
    private final ExecutorService asideThread = Executors.newSingleThreadExecutor(new DaemonThreadFactory("notifier-outbox-aside"));
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

    /** Writes and removes an empty file. If this succeeds, permits writes again and returns true. */
    boolean probe() {
        String error = runWithinLimit(() -> {
            Path probe = folder.write(OutboxFolder.PROBE_PREFIX + System.nanoTime(), "", List.of());
            OutboxFolder.remove(probe);
            return null;
        });
        if (error == null) {
            diskError = null;
            LOG.info("notifier: the outbox is writable again");
        }
        return error == null;
    }

    /**
     * Writes an entry that is only in memory under its {@link OutboxEntry#asideSuffix}. If a write of the entry is running, that
     * write renames its file instead. A failure is logged.
     *
     * @param onEnd runs when the entry need not be kept in memory
     */
    void setAside(OutboxEntry entry, Runnable onEnd) {
        Runnable task = () -> {
            try {
                writeFile(entry, entry.asideSuffix());
            } catch (IOException logged) {
                LOG.debug("notifier: {} is not set aside", entry.name());
            } finally {
                onEnd.run();
            }
        };
        try {
            asideThread.execute(task);
        } catch (RejectedExecutionException closed) {
            task.run(); // the process is stopping
        }
    }

    /** Waits, within the limit, for the entries that are being set aside. */
    void finishSettingAside() {
        asideThread.shutdown();
        try {
            asideThread.awaitTermination(limit.toMillis(), TimeUnit.MILLISECONDS);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }

    private String attempt(OutboxEntry entry, String suffix) {
        String error = runWithinLimit(() -> {
            writeFile(entry, suffix);
            return null;
        });
        if (error == null || !entry.tryAbandonFile()) {
            return null;
        }
        if (!Thread.currentThread().isInterrupted()) { // an interrupted thread proves nothing about the disk
            diskError = error;
        }
        return error;
    }

    /** Writes the file of an entry, unless another write of it is running. Renames or removes the file if the entry was finished meanwhile. */
    private void writeFile(OutboxEntry entry, String suffix) throws IOException {
        List<OutgoingEvent> events = entry.inMemory();
        if (!entry.tryStartWrite()) {
            return;
        }
        try {
            Path file = folder.write(entry.name(), suffix, events);
            if (entry.onWritten(file)) {
                return;
            }
            if (entry.asideSuffix() == null) {
                OutboxFolder.remove(file);
            } else {
                folder.rename(file, entry.name(), entry.asideSuffix());
            }
        } catch (IOException | RuntimeException failure) {
            entry.onWriteFailed();
            if (entry.asideSuffix() != null) {
                LOG.error("notifier: {} cannot be set aside as {}, and is no longer kept: {}", entry.name(), entry.asideSuffix(), describe(failure));
            }
            throw failure;
        }
    }

    /** Returns null, or an error. A task that has not started within the limit never starts. */
    private String runWithinLimit(Callable<Void> task) {
        Future<Void> running = null;
        try {
            running = threads.submit(task);
            running.get(limit.toMillis(), TimeUnit.MILLISECONDS);
            return null;
        } catch (TimeoutException late) {
            running.cancel(false);
            return "the disk did not answer within " + limit.toMillis() + " ms: check " + folder.path();
        } catch (ExecutionException failed) {
            return describe(failed.getCause());
        } catch (InterruptedException stopped) {
            running.cancel(false);
            Thread.currentThread().interrupt();
            return "the thread was interrupted while it waited for the disk";
        } catch (RejectedExecutionException closed) {
            return "the process is stopping";
        }
    }

    private String describe(Throwable failure) {
        return "the outbox " + folder.path() + " is not writable (" + (failure instanceof IOException ? failure.getMessage() : failure.toString())
                + "): check its owner, its permissions and the free space";
    }

    @Override
    public void close() {
        finishSettingAside();
        threads.shutdown();
    }
}
