package dev.notifier.keycloak;

import java.util.List;
import org.keycloak.provider.ProviderConfigProperty;
import org.keycloak.provider.ProviderConfigurationBuilder;

/** Describes the settings for Keycloak's server info. */
final class SettingsMetadata {
    private static final List<String[]> TEXTS = List.of(
            new String[] {"url", "amqps://user@host:5671/vhost of the broker, several hosts by commas; or https://… of notifier's API.", null},
            new String[] {"secretFile", "File with the broker's password, or the API's token.", null},
            new String[] {"secret", "The same, as a value.", null},
            new String[] {"outboxFolder", "Folder of pending events. It must outlive the process.", null},
            new String[] {"outboxMaxEvents", "How many events of lane events may wait. Of mass logouts only the bytes count.", "100000"},
            new String[] {"outboxMaxBytes", "How many bytes of both lanes may wait.", "268435456"},
            new String[] {"outboxMaxAge", "Events older than that are set aside.", "30d"},
            new String[] {"tlsCaFile", "PEM: authorities to trust instead of Java's.", null},
            new String[] {"tlsCertificateFile", "PEM: the client certificate.", null},
            new String[] {"tlsKeyFile", "PEM, PKCS#8: its key.", null},
            new String[] {"exchange", "Exchange of sign-outs.", "notifier.events"},
            new String[] {"bulkExchange", "Exchange of mass logouts.", "notifier.bulk"},
            new String[] {"signOutLimit", "How long a sign-out waits for the disk.", "2s"},
            new String[] {"publishLimit", "A connection without a confirm for so long is dropped.", "10s"},
            new String[] {"drainLimit", "How long a stopping Keycloak continues to publish.", "5s"},
            new String[] {"includeClientMetadata", "Send each client's back-channel logout URL along.", "true"},
            new String[] {"realms", "Names of the realms whose session ends are published, separated by commas. All if empty.", null});

    private SettingsMetadata() {
    }

    static List<ProviderConfigProperty> properties() {
        ProviderConfigurationBuilder builder = ProviderConfigurationBuilder.create();
        for (String[] text : TEXTS) {
            builder.property().name(text[0]).helpText(text[1]).type(ProviderConfigProperty.STRING_TYPE).defaultValue(text[2]).add();
        }
        return builder.build();
    }
}
