package dev.notifier.publisher.settings;

import java.util.List;

/** Lists all mistakes in the settings, each with its setting and the remedy. */
public final class InvalidSettingsException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    public InvalidSettingsException(List<String> mistakes) {
        super("notifier's publisher cannot start:" + String.join("", mistakes.stream().map(each -> "\n  - " + each).toList()));
    }
}
