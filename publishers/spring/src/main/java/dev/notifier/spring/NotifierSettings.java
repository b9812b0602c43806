package dev.notifier.spring;

import dev.notifier.publisher.settings.InvalidSettingsException;
import dev.notifier.publisher.settings.PublisherSettings;
import dev.notifier.publisher.settings.SettingsReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermission;
import java.time.Duration;
import org.springframework.boot.convert.DurationStyle;
import org.springframework.core.env.Environment;

/**
 * The validated properties `notifier.…`.
 *
 * @param publicKeys the file with notifier's public keys; null if the application publishes them itself
 */
record NotifierSettings(PublisherSettings publisher, Path publicKeys, Duration sweepInterval, boolean revokesRefreshTokens) {
    private static final String PREFIX = "notifier.";
    private static final String REMEDY = "Correct the properties, for example in application.properties. To start without notifier, set notifier.enabled=false.";
    private static final int MAX_SWEEP_SECONDS = 3_600;

    /** @throws NotifierConfigurationException if a property is missing or wrong */
    static NotifierSettings read(Environment environment) {
        PublisherSettings publisher;
        try {
            publisher = SettingsReader.read(name -> environment.getProperty(toProperty(name)), NotifierSettings::toProperty, "notifier-spring");
        } catch (InvalidSettingsException invalid) {
            throw new NotifierConfigurationException(invalid.getMessage(), REMEDY);
        }
        requirePrivate(publisher.outbox().folder());
        String publicKeys = environment.getProperty(PREFIX + "public-keys", "").strip();
        if (publicKeys.isEmpty()) {
            throw new NotifierConfigurationException("notifier.public-keys is missing, without which clients refuse notifier's logout tokens.",
                    "Set it to a file with the output of `notifier keys jwks`, or to `none` if the application's JWK Set contains these keys already.");
        }
        return new NotifierSettings(publisher, publicKeys.equals("none") ? null : Path.of(publicKeys), sweepInterval(environment), flag(environment, "refresh-tokens.revoke"));
    }

    /** Returns the property of a setting: `notifier.outbox.max-events` for `outboxMaxEvents`. */
    static String toProperty(String name) {
        return PREFIX + SettingsReader.toKebabCase(name).replaceFirst("^(outbox|tls)-", "$1.");
    }

    private static void requirePrivate(Path outbox) {
        try {
            if (Files.isDirectory(outbox) && Files.getPosixFilePermissions(outbox).contains(PosixFilePermission.OTHERS_WRITE)) {
                throw new NotifierConfigurationException("notifier.outbox.folder names a folder that other users may write to, so its events may be theirs: " + outbox,
                        "Inspect the folder, then run `chmod 700 " + outbox + "`, or set notifier.outbox.folder to another one.");
            }
        } catch (IOException | UnsupportedOperationException failure) {
            throw createFolderFailure(outbox, failure);
        }
    }

    static NotifierConfigurationException createFolderFailure(Path outbox, Exception failure) {
        return new NotifierConfigurationException("notifier.outbox.folder names a folder that cannot be used: " + outbox + " (" + failure + ")",
                "Give the folder to the user of this process, on a file system of Linux that supports locks: `chown` and `chmod 700`.");
    }

    private static boolean flag(Environment environment, String name) {
        String text = environment.getProperty(PREFIX + name, "true");
        if (!text.equals("true") && !text.equals("false")) {
            throw new NotifierConfigurationException(PREFIX + name + " is " + text, "Set it to true or false.");
        }
        return text.equals("true");
    }

    private static Duration sweepInterval(Environment environment) {
        String text = environment.getProperty(PREFIX + "sweep.interval", "30s");
        try {
            Duration interval = DurationStyle.detectAndParse(text);
            if (interval.toSeconds() >= 1 && interval.toSeconds() <= MAX_SWEEP_SECONDS) {
                return interval;
            }
        } catch (IllegalArgumentException invalid) {
            // reported below
        }
        throw new NotifierConfigurationException("notifier.sweep.interval is " + text, "Set it to a time from 1s to 1h, such as 30s.");
    }
}
