package dev.notifier.publisher.monitoring;

import java.util.concurrent.ThreadFactory;

/**
 * Creates daemon threads, which do not keep the process from ending. They have the context class loader of the thread that
 * creates the factory, on which a server's database access may depend, such as Keycloak's.
 */
public final class DaemonThreadFactory implements ThreadFactory {
    private final String name;
    private final ClassLoader loader = Thread.currentThread().getContextClassLoader();

    public DaemonThreadFactory(String name) {
        this.name = name;
    }

    @Override
    public Thread newThread(Runnable task) {
        Thread thread = new Thread(task, name);
        thread.setDaemon(true);
        thread.setContextClassLoader(loader);
        return thread;
    }
}
