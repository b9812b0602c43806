package dev.notifier.spring;

import dev.notifier.spring.jackson.databind.JsonNode;
import dev.notifier.spring.jackson.databind.ObjectMapper;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.Stream;

/** Reads the events in an outbox whose notifier is unreachable. */
record OutboxEvents(Path outbox) {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** Returns the lines of all files: lane and event. */
    List<JsonNode> lines() {
        List<JsonNode> lines = new ArrayList<>();
        for (File folder : list(outbox.toFile())) {
            for (File file : list(folder)) {
                if (file.getName().matches(".*\\.(pending|json)")) {
                    readLines(file.toPath()).forEach(line -> lines.add(parse(line)));
                }
            }
        }
        return lines;
    }

    private static List<File> list(File folder) {
        File[] files = folder.listFiles();
        return files == null ? List.of() : Stream.of(files).sorted().toList();
    }

    private static List<String> readLines(Path file) {
        try {
            return Files.readAllLines(file);
        } catch (NoSuchFileException renamed) {
            return readLines(Path.of(file.toString().replace(".pending", ".json")));
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }

    private static JsonNode parse(String line) {
        try {
            return JSON.readTree(line);
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
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

    /** Returns the events of a session, each once: a file may be listed before and after it is renamed. */
    List<JsonNode> ofSession(String sid) {
        Set<String> ids = new HashSet<>();
        return events().stream().filter(each -> each.get("sid").asText().equals(sid) && ids.add(each.get("id").asText())).toList();
    }

    static List<String> clientIds(JsonNode event) {
        List<String> ids = new ArrayList<>();
        event.get("clients").forEach(each -> ids.add(each.get("client_id").asText()));
        return ids;
    }
}
