package dev.notifier.publisher.publishing;

import java.time.Duration;
import java.util.Locale;

/** Events could not be published now. They stay, and are tried again. */
public final class PublishException extends Exception {
    private static final long serialVersionUID = 1L;

    /** What failed; the label of the metric too. */
    public enum Reason {
        /** No connection. */
        UNREACHABLE,
        /** User, password, token, permission or certificate. */
        DENIED,
        /** No answer within the limit: the broker is frozen, or blocks publishing. */
        TIMED_OUT,
        /** No exchange, or no queue behind it. */
        UNROUTABLE,
        /** The broker's queue or the API did not accept it. */
        REJECTED,
        /** The connection broke. */
        DISCONNECTED,
        /** Another server answered in place of notifier. */
        INTERCEPTED;

        /** The label. */
        public String word() {
            return name().toLowerCase(Locale.ROOT);
        }
    }

    private final Reason reason;
    private final transient Duration retryAfter;

    public PublishException(Reason reason, String text) {
        this(reason, text, Duration.ZERO);
    }

    /** @param retryAfter how long the other side wants to be left alone */
    public PublishException(Reason reason, String text, Duration retryAfter) {
        super(text, null, false, false);
        this.reason = reason;
        this.retryAfter = retryAfter;
    }

    public Reason reason() {
        return reason;
    }

    public Duration retryAfter() {
        return retryAfter;
    }
}
