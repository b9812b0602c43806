package dev.notifier.keycloak;

import dev.notifier.publisher.settings.PublisherSettings;
import dev.notifier.publisher.settings.SettingsReader;
import dev.notifier.publisher.settings.InvalidSettingsException;
import java.io.IOException;
import java.util.List;
import org.jboss.logging.Logger;
import org.keycloak.Config;
import org.keycloak.models.ClientModel;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.KeycloakSessionFactory;
import org.keycloak.models.utils.PostMigrationEvent;
import org.keycloak.provider.ProviderConfigProperty;
import org.keycloak.provider.ServerInfoAwareProviderFactory;

/** Reads the settings at the start, refuses to start with wrong ones, and runs the publisher. */
public class DefaultNotifierProviderFactory implements NotifierProviderFactory, ServerInfoAwareProviderFactory {
    private static final Logger LOG = Logger.getLogger(DefaultNotifierProviderFactory.class);

    private PublisherSettings settings;
    private volatile Publisher publisher;

    @Override
    public void init(Config.Scope config) {
        CompatibilityCheck.check();
        settings = SettingsReader.read(config::get);
    }

    @Override
    public void postInit(KeycloakSessionFactory factory) {
        CompatibilityCheck.checkPlace(factory);
        CompatibilityCheck.warn();
        try {
            publisher = Publisher.start(settings);
        } catch (IOException failed) {
            throw new InvalidSettingsException(List.of(SettingsReader.spelled("outboxFolder") + " names a folder that cannot be used ("
                    + failed + "): see to its owner and its rights"));
        }
        LOG.infof("notifier: session ended events go to %s, by the outbox %s", settings.endpoint(), settings.outbox().folder());
        factory.register(event -> {
            Publisher open = publisher;
            if (open != null && event instanceof PostMigrationEvent) {
                open.takeUp(sessions -> SessionTable.living(factory, sessions));
            } else if (open != null && event instanceof ClientModel.ClientRemovedEvent removed) {
                open.guarded("the removal of a client", () -> ClientEntryCache.remember(removed.getKeycloakSession(), removed.getClient()));
            }
        });
    }

    @Override
    public NotifierProvider create(KeycloakSession session) {
        return new NotifierProvider() {
            @Override
            public Publisher publisher() {
                return publisher;
            }

            @Override
            public void close() {
                // of the process, not of the session
            }
        };
    }

    @Override
    public Publisher publisher() {
        return publisher;
    }

    @Override
    public void close() {
        if (publisher != null) {
            publisher.close(); // and is kept: a sign-out may still be under way, and its event is written all the same
        }
    }

    @Override
    public String getId() {
        return "publisher";
    }

    @Override
    public java.util.Map<String, String> getOperationalInfo() {
        return settings == null ? java.util.Map.of() : java.util.Map.of("endpoint", settings.endpoint().toString(), "outbox", settings.outbox().folder().toString());
    }

    @Override
    public List<ProviderConfigProperty> getConfigMetadata() {
        return SettingsMetadata.properties();
    }
}
