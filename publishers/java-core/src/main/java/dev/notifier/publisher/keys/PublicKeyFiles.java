package dev.notifier.publisher.keys;

import dev.notifier.publisher.monitoring.LogThrottle;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Reads files of public keys, each again every 10 seconds. The last content stays valid while a file cannot be read. */
public final class PublicKeyFiles {
    private static final Logger LOG = LoggerFactory.getLogger("dev.notifier.publisher.keys.PublicKeyFactory");
    private static final long MAX_FILE_BYTES = 65_536;
    private static final Duration READ_INTERVAL = Duration.ofSeconds(10);

    private final Map<String, Content> contents = new ConcurrentHashMap<>();
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));

    /**
     * Returns the text of a file.
     *
     * @throws InvalidKeysException if the file has never been readable
     */
    public String read(Path file) throws InvalidKeysException {
        Content last = contents.get(file.toString());
        long now = System.nanoTime();
        if (last != null && now - last.readAt < READ_INTERVAL.toNanos()) {
            return last.text;
        }
        try {
            if (!Files.isRegularFile(file) || Files.size(file) > MAX_FILE_BYTES) {
                throw new IOException("it is not a file of keys");
            }
            String text = Files.readString(file, StandardCharsets.UTF_8);
            contents.put(file.toString(), new Content(text, now));
            return text;
        } catch (IOException | RuntimeException failure) {
            if (last == null) {
                throw new InvalidKeysException("The file cannot be read on this machine.");
            }
            if (throttle.tryAcquire(file.toString())) {
                LOG.error("notifier: the file of public keys cannot be read any more, its last content stays in force: {}", file);
            }
            return last.text;
        }
    }

    private record Content(String text, long readAt) {
    }
}
