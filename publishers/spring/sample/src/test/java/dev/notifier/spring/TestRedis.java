package dev.notifier.spring;

import java.io.File;
import java.io.IOException;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Assumptions;

/** A private redis-server without a file, for all tests of this process. */
final class TestRedis {
    private static final int TRIES = 1_000;
    private static TestRedis shared;

    final int port;
    private final Process process;

    private TestRedis() throws IOException {
        try (ServerSocket free = new ServerSocket(0)) {
            port = free.getLocalPort();
        }
        process = new ProcessBuilder("redis-server", "--port", String.valueOf(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
                .directory(new File(System.getProperty("java.io.tmpdir"))).redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.DISCARD).start();
        Runtime.getRuntime().addShutdownHook(new Thread(process::destroyForcibly));
        for (int tries = 0; !isListening(); tries++) {
            if (tries == TRIES || !process.isAlive()) {
                throw new IOException("redis-server does not start");
            }
            LockSupport.parkNanos(20_000_000);
        }
    }

    private boolean isListening() {
        try (Socket socket = new Socket("127.0.0.1", port)) {
            return socket.isConnected();
        } catch (IOException notYet) {
            return false;
        }
    }

    /** Returns the server. The test is skipped if it is not installed. */
    static synchronized TestRedis get() throws IOException {
        if (shared == null) {
            boolean isInstalled = false;
            for (String folder : System.getenv("PATH").split(File.pathSeparator)) {
                isInstalled |= new File(folder, "redis-server").canExecute();
            }
            Assumptions.assumeTrue(isInstalled, "apt-get install redis-server");
            shared = new TestRedis();
        }
        return shared;
    }
}
