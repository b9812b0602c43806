package dev.notifier.keycloak;

import java.util.List;
import org.keycloak.provider.ProviderConfigProperty;
import org.keycloak.provider.ProviderConfigurationBuilder;

/** What Keycloak shows of the settings. */
final class SettingsMetadata {
    private static final List<String[]> TEXTS = List.of(
            new String[] {"url", "amqps://user@host:5671/vhost of the broker, several hosts by commas; or https://… of notifier's API.", null},
            new String[] {"secretFile", "File with the broker's password, or the API's token.", null},
            new String[] {"secret", "The same, as a value.", null},
            new String[] {"outboxFolder", "Folder where events wait. It must outlive the process.", null},
            new String[] {"outboxMaxEvents", "How many events of lane events may wait. Of mass logouts only the bytes count.", "100000"},
            new String[] {"outboxMaxBytes", "How many bytes of both lanes may wait.", "268435456"},
            new String[] {"outboxMaxAge", "Events older than that are set aside.", "30d"},
            new String[] {"tlsCaFile", "PEM: authorities to trust instead of Java's.", null},
            new String[] {"tlsCertificateFile", "PEM: our certificate.", null},
            new String[] {"tlsKeyFile", "PEM, PKCS#8: its key.", null},
            new String[] {"exchange", "Exchange of sign-outs.", "notifier.events"},
            new String[] {"bulkExchange", "Exchange of mass logouts.", "notifier.bulk"},
            new String[] {"signOutLimit", "How long a sign-out waits for the disk.", "2s"},
            new String[] {"publishLimit", "A connection that is silent for so long is dropped.", "10s"},
            new String[] {"drainLimit", "How long a Keycloak that stops goes on publishing.", "5s"},
            new String[] {"includeClientMetadata", "Send each client's back-channel logout URL along.", "true"},
            new String[] {"realms", "Names of the realms whose endings are published, separated by commas. All if empty.", null});

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
