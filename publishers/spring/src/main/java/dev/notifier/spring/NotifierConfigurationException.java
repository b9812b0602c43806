package dev.notifier.spring;

import org.springframework.boot.diagnostics.AbstractFailureAnalyzer;
import org.springframework.boot.diagnostics.FailureAnalysis;

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

    /** Reports the description and the remedy instead of a stack trace. */
    static final class Analyzer extends AbstractFailureAnalyzer<NotifierConfigurationException> {
        @Override
        protected FailureAnalysis analyze(Throwable rootFailure, NotifierConfigurationException cause) {
            return new FailureAnalysis(cause.getMessage(), cause.remedy, cause);
        }
    }
}
