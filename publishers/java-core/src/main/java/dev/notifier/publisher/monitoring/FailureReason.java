package dev.notifier.publisher.monitoring;

import java.util.Locale;

/** Why an attempt to publish failed. Log lines and the metric `notifier_publisher_failures_total` contain it. */
public enum FailureReason {
    /** No connection. */
    UNREACHABLE,
    /** User, password, token, permission or certificate. */
    DENIED,
    /** No answer within the limit: the broker is frozen, or blocks publishing. */
    TIMED_OUT,
    /** The exchange does not exist, or no queue is bound to it. */
    UNROUTABLE,
    /** The broker's queue or the API did not accept the event. */
    REJECTED,
    /** The connection broke. */
    DISCONNECTED,
    /** Another server answered in place of notifier. */
    INTERCEPTED;

    /** Returns the reason as log lines and metrics contain it. */
    public String label() {
        return name().toLowerCase(Locale.ROOT);
    }
}
