package dev.notifier.spring;

import dev.notifier.spring.jackson.databind.JsonNode;
import dev.notifier.spring.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.Stream;

/** Reads the events in an outbox whose notifier is unreachable. */
record OutboxEvents(Path outbox) {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** Returns the lines of all files: lane and event. */
    List<JsonNode> lines() {
        List<JsonNode> lines = new ArrayList<>();
        try (Stream<Path> files = Files.exists(outbox) ? Files.walk(outbox) : Stream.empty()) {
            for (Path file : files.filter(each -> each.toString().matches(".*\\.(pending|json)")).sorted().toList()) {
                for (String line : readLines(file)) {
                    lines.add(JSON.readTree(line));
                }
            }
            return lines;
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }

    private static List<String> readLines(Path file) throws IOException {
        try {
            return Files.readAllLines(file);
        } catch (NoSuchFileException renamed) {
            return Files.readAllLines(Path.of(file.toString().replace(".pending", ".json")));
        }
    }

    List<JsonNode> events() {
        return lines().stream().map(each -> each.get("event")).toList();
    }

    /** Returns the events of a session once there is one; none if the limit is reached. */
    List<JsonNode> await(String sid, Duration limit) {
        long deadline = System.nanoTime() + limit.toNanos();
        List<JsonNode> found = ofSession(sid);
        while (found.isEmpty() && System.nanoTime() < deadline) {
            LockSupport.parkNanos(20_000_000);
            found = ofSession(sid);
        }
        return found;
    }

    List<JsonNode> ofSession(String sid) {
        return events().stream().filter(each -> each.get("sid").asText().equals(sid)).toList();
    }

    static List<String> clientIds(JsonNode event) {
        List<String> ids = new ArrayList<>();
        event.get("clients").forEach(each -> ids.add(each.get("client_id").asText()));
        return ids;
    }
}
