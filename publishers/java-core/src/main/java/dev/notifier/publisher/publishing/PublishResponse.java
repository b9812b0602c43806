package dev.notifier.publisher.publishing;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Locale;

/**
 * The response to a posted event. Decides the outcome for the event.
 *
 * Proxies, firewalls and captive portals respond in place of notifier, with any status. A response is notifier's if its body
 * proves it: a 202 by the event's id, an error by the type of its problem document (RFC 9457).
 *
 * @param server the header `Server`, null without it
 * @param body the body, at most its first 64 KiB
 */
record PublishResponse(int status, String contentType, String server, Duration retryAfter, byte[] body) {
    static final int MAX_BODY_BYTES = 64 * 1024;

    private static final String PROBLEM_TYPE = "urn:notifier:problem";
    private static final String PROBLEM_MEDIA_TYPE = "application/problem+json";
    private static final int MAX_PROBLEM_LENGTH = 300;
    private static final int MAX_EXCERPT_LENGTH = 200;
    private static final ObjectMapper JSON = new ObjectMapper();

    /** The outcome of a posted event. */
    sealed interface Outcome {
    }

    /** notifier has stored the event. */
    record Confirmed() implements Outcome {
    }

    /** notifier refuses the event for good. */
    record Refused(String text) implements Outcome {
    }

    /** The event stays, and is posted again. */
    record Failed(PublishException trouble) implements Outcome {
    }

    /** Returns the outcome for the event with this id, which was posted with this token. */
    Outcome toOutcome(String eventId, String token) {
        if (status == 202 && eventId.equals(member("id"))) {
            return new Confirmed();
        }
        if (isProblemOfNotifier()) {
            String problem = "notifier answers " + status + ": " + line(text(), MAX_PROBLEM_LENGTH);
            return switch (status) {
                case 400, 413, 422 -> new Refused(problem);
                case 401, 403 -> new Failed(new PublishException(PublishException.Reason.DENIED, problem
                        + "; check the token of secret-file, its scope publish, and the issuer's publishers"));
                default -> new Failed(new PublishException(PublishException.Reason.REJECTED, problem, retryAfter));
            };
        }
        String from = server == null ? "no header Server" : "Server: " + line(server, MAX_EXCERPT_LENGTH);
        String excerpt = repeats(eventId) || repeats(token) ? "a page that repeats the request" : line(text(), MAX_EXCERPT_LENGTH);
        String answer = "the answer is " + status + " (" + from + "): " + (excerpt.isEmpty() ? "no body" : excerpt);
        boolean isOutage = status == 408 || status == 429 || status >= 500 && status <= 599;
        return new Failed(isOutage
                ? new PublishException(PublishException.Reason.REJECTED, answer, retryAfter)
                : new PublishException(PublishException.Reason.INTERCEPTED, answer + "; it is not notifier's: check url, and proxies before it"));
    }

    private boolean isProblemOfNotifier() {
        return PROBLEM_MEDIA_TYPE.equalsIgnoreCase(contentType.split(";", 2)[0].strip()) && PROBLEM_TYPE.equals(member("type"));
    }

    /** The text of a member of the body; null if the body is not an object that has it. */
    private String member(String name) {
        try {
            JsonNode document = JSON.readTree(body);
            return document == null ? null : document.path(name).textValue();
        } catch (IOException invalid) {
            return null;
        }
    }

    /** Such a page would put the token, the user or the session into the log, also with escaped characters. */
    private boolean repeats(String part) {
        if (part == null || part.isEmpty()) {
            return false;
        }
        String page = text().toLowerCase(Locale.ROOT);
        StringBuilder entities = new StringBuilder();
        part.chars().forEach(each -> entities.append(Character.isLetterOrDigit(each) ? Character.toString(each) : "&#" + each + ";"));
        return List.of(part, part.replace("/", "\\/"), URLEncoder.encode(part, StandardCharsets.UTF_8), entities.toString()).stream()
                .anyMatch(form -> page.contains(form.toLowerCase(Locale.ROOT)));
    }

    private String text() {
        return new String(body, StandardCharsets.UTF_8);
    }

    /** The beginning of a text on one line, so that it cannot forge a log line. */
    private static String line(String text, int length) {
        String start = text.substring(0, Math.min(text.length(), 4 * length)).replaceAll("[\\p{C}\\p{Z}]+", " ").strip();
        return start.substring(0, Math.min(start.length(), length));
    }
}
