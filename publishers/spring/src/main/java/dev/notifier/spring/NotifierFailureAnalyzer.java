package dev.notifier.spring;

import org.springframework.boot.diagnostics.AbstractFailureAnalyzer;
import org.springframework.boot.diagnostics.FailureAnalysis;

/** Reports a wrong configuration with its remedy instead of a stack trace. */
final class NotifierFailureAnalyzer extends AbstractFailureAnalyzer<NotifierConfigurationException> {
    NotifierFailureAnalyzer() {
    }

    @Override
    protected FailureAnalysis analyze(Throwable rootFailure, NotifierConfigurationException cause) {
        return new FailureAnalysis(cause.getMessage(), cause.remedy(), cause);
    }
}
