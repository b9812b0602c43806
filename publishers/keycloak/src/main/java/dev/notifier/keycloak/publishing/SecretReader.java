package dev.notifier.keycloak.publishing;

import dev.notifier.keycloak.settings.Settings.Secret;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;

/** Reads the password or token, again for each connection: it may have been changed. */
final class SecretReader {
    private SecretReader() {
    }

    /** Null if there is none. */
    static String read(Secret secret) throws Trouble {
        if (secret.file() == null) {
            return secret.value();
        }
        try {
            String text = Files.readString(secret.file(), StandardCharsets.UTF_8).strip();
            if (text.isEmpty()) {
                throw new Trouble(Trouble.Reason.DENIED, "the file of secret-file is empty: " + secret.file());
            }
            return text;
        } catch (IOException failed) {
            throw new Trouble(Trouble.Reason.DENIED, "the file of secret-file cannot be read: " + secret.file());
        }
    }
}
