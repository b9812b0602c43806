package dev.notifier.publisher.keys;

/** The public keys cannot be used. The message contains the remedy. */
public final class InvalidKeysException extends Exception {
    private static final long serialVersionUID = 1L;

    public InvalidKeysException(String message) {
        super(message);
    }
}
