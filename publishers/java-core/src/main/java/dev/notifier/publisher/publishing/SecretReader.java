package dev.notifier.publisher.publishing;

import dev.notifier.publisher.monitoring.FailureReason;
import dev.notifier.publisher.settings.PublisherSettings.Secret;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;

/** Reads the password or token. It is read for each connection, so that a rotated one takes effect. */
final class SecretReader {
    private SecretReader() {
    }

    /** Returns null if none is configured. */
    static String read(Secret secret) throws PublishException {
        if (secret.file() == null) {
            return secret.value();
        }
        try {
            String text = Files.readString(secret.file(), StandardCharsets.UTF_8).strip();
            if (text.isEmpty()) {
                throw new PublishException(FailureReason.DENIED, "the file of secret-file is empty: " + secret.file());
            }
            return text;
        } catch (IOException failure) {
            throw new PublishException(FailureReason.DENIED, "the file of secret-file cannot be read: " + secret.file());
        }
    }
}
