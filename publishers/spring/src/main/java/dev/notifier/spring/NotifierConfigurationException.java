package dev.notifier.spring;

/** The application cannot start with its configuration. Contains the remedy. */
final class NotifierConfigurationException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final String remedy;

    NotifierConfigurationException(String description, String remedy) {
        super(description);
        this.remedy = remedy;
    }

    String remedy() {
        return remedy;
    }
}
