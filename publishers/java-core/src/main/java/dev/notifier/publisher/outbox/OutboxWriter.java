package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.jboss.logging.Logger;

/** Threads that write files, so that a disk that hangs holds nobody longer than the limit. */
final class OutboxWriter implements AutoCloseable {
    private static final Logger LOG = Logger.getLogger(OutboxWriter.class);
    private static final int THREADS = 8;

    private final ExecutorService threads = Executors.newFixedThreadPool(THREADS, new DaemonThreadFactory("notifier-outbox-writer"));
    private final OutboxFolder folder;
    private final Duration limit;
    private volatile String trouble;

    OutboxWriter(OutboxFolder folder, Duration limit) {
        this.folder = folder;
        this.limit = limit;
    }

    /** Write the slip durably. Null if that worked, else why not: then it is in memory, and the disk is left alone for a while. */
    String write(OutboxEntry entry, String ending) {
        return trouble != null ? trouble : attempt(entry, ending);
    }

    boolean isWell() {
        return trouble == null;
    }

    /** See whether the disk takes something again. */
    boolean tryAgain() {
        String why = within(() -> {
            Path trial = folder.write(OutboxFolder.TRIAL + System.nanoTime(), "", List.of());
            OutboxFolder.remove(trial);
            return null;
        });
        if (why == null) {
            trouble = null;
            LOG.info("notifier: the outbox takes events again");
        }
        return why == null;
    }

    /** An interrupted thread proves nothing about the disk. */
    private String attempt(OutboxEntry entry, String ending) {
        List<OutgoingEvent> events = entry.inMemory();
        String why = within(() -> {
            Path file = folder.write(entry.name(), ending, events);
            if (!entry.written(file)) {
                OutboxFolder.remove(file); // nobody waits any more: it is in memory
            }
            return null;
        });
        if (why == null || !entry.abandon()) {
            return null;
        }
        if (!Thread.currentThread().isInterrupted()) {
            trouble = why;
        }
        return why;
    }

    /** The error, or null. */
    private String within(java.util.concurrent.Callable<Void> task) {
        Future<Void> running = null;
        try {
            running = threads.submit(task);
            running.get(limit.toMillis(), TimeUnit.MILLISECONDS);
            return null;
        } catch (TimeoutException late) {
            return "the disk did not answer within " + limit.toMillis() + " ms: see to " + folder.path();
        } catch (ExecutionException failed) {
            return said(failed.getCause());
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
            return "the thread was interrupted while it waited for the disk";
        } catch (RejectedExecutionException closed) {
            return "Keycloak is stopping";
        }
    }

    private String said(Throwable failed) {
        return "the outbox " + folder.path() + " takes nothing (" + (failed instanceof IOException ? failed.getMessage() : failed.toString())
                + "): see to its owner, its rights and the room on its disk";
    }

    @Override
    public void close() {
        threads.shutdown();
    }
}
