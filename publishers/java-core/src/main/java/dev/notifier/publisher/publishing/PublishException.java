package dev.notifier.publisher.publishing;

import dev.notifier.publisher.monitoring.FailureReason;
import java.time.Duration;

/** Events could not be published now. They stay in the outbox and are sent again. */
public final class PublishException extends Exception {
    private static final long serialVersionUID = 1L;

    private final FailureReason reason;
    private final transient Duration retryAfter;

    public PublishException(FailureReason reason, String message) {
        this(reason, message, Duration.ZERO);
    }

    /** @param retryAfter the pause that the server requests */
    public PublishException(FailureReason reason, String message, Duration retryAfter) {
        super(message, null, false, false);
        this.reason = reason;
        this.retryAfter = retryAfter;
    }

    public FailureReason reason() {
        return reason;
    }

    public Duration retryAfter() {
        return retryAfter;
    }
}
