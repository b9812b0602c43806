package dev.notifier.spring;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.core.read.ListAppender;
import java.util.List;
import org.slf4j.LoggerFactory;

/** Collects the log lines of the starter, also those of level debug, and the application's. */
final class CapturedLogs implements AutoCloseable {
    private final Logger root = (Logger) LoggerFactory.getLogger(org.slf4j.Logger.ROOT_LOGGER_NAME);
    private final ListAppender<ILoggingEvent> lines = new ListAppender<>();

    CapturedLogs() {
        ((Logger) LoggerFactory.getLogger("dev.notifier")).setLevel(Level.DEBUG);
        lines.start();
        root.addAppender(lines);
    }

    String text() {
        return String.join("\n", List.copyOf(lines.list).stream().map(each -> each.getFormattedMessage() + ' ' + each.getThrowableProxy()).toList());
    }

    @Override
    public void close() {
        root.detachAppender(lines);
    }
}
