package dev.notifier.publisher.publishing;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.notifier.publisher.monitoring.FailureReason;
import java.io.IOException;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Locale;

/**
 * The response to a posted event, which decides the outcome for the event.
 *
 * Proxies, firewalls and captive portals respond in place of notifier, with any status. A response is notifier's if its body
 * contains the event's id (202) or a problem document of notifier's type (RFC 9457, errors).
 *
 * @param server the header `Server`; null without it
 * @param body the first 64 KiB of the body
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

    /** notifier accepts other events, but not this one before the token's or the issuer's configuration changes. */
    record Forbidden(String text) implements Outcome {
    }

    /** The event is posted again. */
    record Failed(PublishException failure) implements Outcome {
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
                case 401 -> new Failed(new PublishException(FailureReason.DENIED, problem + "; check the token of secret-file"));
                case 403 -> new Forbidden(problem + "; check the token's scope publish, its issuers, and the issuer's publishers");
                default -> new Failed(new PublishException(FailureReason.REJECTED, problem, retryAfter));
            };
        }
        String from = server == null ? "no header Server" : "Server: " + line(server, MAX_EXCERPT_LENGTH);
        String excerpt = repeats(eventId) || repeats(token) ? "a page that repeats the request" : line(text(), MAX_EXCERPT_LENGTH);
        String answer = "the answer is " + status + " (" + from + "): " + (excerpt.isEmpty() ? "no body" : excerpt);
        boolean isOutage = status == 408 || status == 429 || status >= 500 && status <= 599;
        return new Failed(isOutage
                ? new PublishException(FailureReason.REJECTED, answer, retryAfter)
                : new PublishException(FailureReason.INTERCEPTED, answer + "; it is not notifier's: check url, and proxies before it"));
    }

    private boolean isProblemOfNotifier() {
        return PROBLEM_MEDIA_TYPE.equalsIgnoreCase(contentType.split(";", 2)[0].strip()) && PROBLEM_TYPE.equals(member("type"));
    }

    /** Returns the text of a member of the body; null if the body is not an object with this member. */
    private String member(String name) {
        try {
            JsonNode document = JSON.readTree(body);
            return document == null ? null : document.path(name).textValue();
        } catch (IOException invalid) {
            return null;
        }
    }

    /** Returns whether the body contains this text, also escaped: it must not be logged if it repeats the token or the event. */
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

    /** Returns the beginning of a text on one line, so that it cannot forge a log line. */
    private static String line(String text, int length) {
        String start = text.substring(0, Math.min(text.length(), 4 * length)).replaceAll("[\\p{C}\\p{Z}]+", " ").strip();
        return start.substring(0, Math.min(start.length(), length));
    }
}
