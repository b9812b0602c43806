package dev.notifier.publisher.monitoring;

import java.util.concurrent.ThreadFactory;

/** Threads that do not keep a process from ending. */
public final class DaemonThreadFactory {
    private DaemonThreadFactory() {
    }

    /** A factory of them. They have the class loader of whoever makes them, which Keycloak's database needs. */
    public static ThreadFactory named(String name) {
        ClassLoader loader = Thread.currentThread().getContextClassLoader();
        return task -> {
            Thread thread = new Thread(task, name);
            thread.setDaemon(true);
            thread.setContextClassLoader(loader);
            return thread;
        };
    }
}
