package dev.notifier.keycloak;

import dev.notifier.publisher.SessionEndedPublisher;
import dev.notifier.publisher.monitoring.MicrometerMetrics;
import dev.notifier.publisher.settings.InvalidSettingsException;
import dev.notifier.publisher.settings.PublisherSettings;
import dev.notifier.publisher.settings.SettingsReader;
import io.micrometer.core.instrument.Metrics;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import org.jboss.logging.Logger;
import org.keycloak.Config;
import org.keycloak.models.ClientModel;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.KeycloakSessionFactory;
import org.keycloak.models.utils.PostMigrationEvent;
import org.keycloak.provider.ProviderConfigProperty;
import org.keycloak.provider.ServerInfoAwareProviderFactory;

/** Reads the settings, and starts and stops the publisher with Keycloak. Wrong settings prevent Keycloak's start. */
public class DefaultNotifierProviderFactory implements NotifierProviderFactory, ServerInfoAwareProviderFactory {
    private static final Logger LOG = Logger.getLogger("dev.notifier.keycloak.PublisherFactory");
    private static final String SETTING_PREFIX = "spi-notifier--publisher--";

    private PublisherSettings settings;
    private RealmFilter realms;
    private volatile KeycloakPublisher publisher;

    @Override
    public void init(Config.Scope config) {
        CompatibilityCheck.requireSupportedVersion();
        settings = SettingsReader.read(config::get, SETTING_PREFIX, "notifier-keycloak");
        realms = RealmFilter.parse(config.get("realms"));
    }

    @Override
    public void postInit(KeycloakSessionFactory factory) {
        CompatibilityCheck.requireOwnProviders(factory);
        CompatibilityCheck.warnOfLimitations();
        try {
            publisher = new KeycloakPublisher(SessionEndedPublisher.start(settings, new MicrometerMetrics(Metrics.globalRegistry)), realms);
        } catch (IOException failure) {
            throw new InvalidSettingsException(List.of(SETTING_PREFIX + SettingsReader.toKebabCase("outboxFolder") + " names a folder that cannot be used ("
                    + failure + "): see to its owner and its rights"));
        }
        LOG.infof("notifier: session ended events go to %s, by the outbox %s", settings.endpoint(), settings.outbox().folder());
        factory.register(event -> {
            KeycloakPublisher current = publisher;
            if (current != null && event instanceof PostMigrationEvent) {
                current.publisher().startTakeover(sessions -> SessionReader.findLiving(factory, sessions));
            } else if (current != null && event instanceof ClientModel.ClientRemovedEvent removed) {
                current.runGuarded("the removal of a client", () -> ClientEntryCache.remember(removed.getKeycloakSession(), removed.getClient()));
            }
        });
    }

    @Override
    public NotifierProvider create(KeycloakSession session) {
        return new NotifierProvider() {
            @Override
            public KeycloakPublisher publisher() {
                return publisher;
            }

            @Override
            public void close() {
                // the publisher belongs to the process, not to the session
            }
        };
    }

    @Override
    public KeycloakPublisher publisher() {
        return publisher;
    }

    @Override
    public void close() {
        if (publisher != null) {
            publisher.publisher().close(); // the reference stays: a sign-out in progress still writes its event
        }
    }

    @Override
    public String getId() {
        return "publisher";
    }

    @Override
    public Map<String, String> getOperationalInfo() {
        return settings == null ? Map.of() : Map.of("endpoint", settings.endpoint().toString(), "outbox", settings.outbox().folder().toString());
    }

    @Override
    public List<ProviderConfigProperty> getConfigMetadata() {
        return SettingsMetadata.properties();
    }
}
