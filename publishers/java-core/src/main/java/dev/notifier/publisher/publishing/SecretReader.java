package dev.notifier.publisher.publishing;

import dev.notifier.publisher.settings.PublisherSettings.Secret;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;

/** Reads the password or token, again for each connection: it may have been changed. */
final class SecretReader {
    private SecretReader() {
    }

    /** Null if there is none. */
    static String read(Secret secret) throws PublishException {
        if (secret.file() == null) {
            return secret.value();
        }
        try {
            String text = Files.readString(secret.file(), StandardCharsets.UTF_8).strip();
            if (text.isEmpty()) {
                throw new PublishException(PublishException.Reason.DENIED, "the file of secret-file is empty: " + secret.file());
            }
            return text;
        } catch (IOException failed) {
            throw new PublishException(PublishException.Reason.DENIED, "the file of secret-file cannot be read: " + secret.file());
        }
    }
}
