package dev.notifier.keycloak;

import dev.notifier.publisher.SessionEndedPublisher;
import dev.notifier.publisher.outbox.Outbox;
import dev.notifier.publisher.settings.PublisherSettings;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.KeycloakSessionFactory;
import org.keycloak.provider.ProviderFactory;

/** The publisher of this Keycloak, with the state that the plug-in's providers share. */
public final class KeycloakPublisher {
    private final SessionEndedPublisher publisher;
    private final RealmFilter realms;
    private final ClientSignOutRegistry clientSignOuts = new ClientSignOutRegistry();

    KeycloakPublisher(SessionEndedPublisher publisher, RealmFilter realms) {
        this.publisher = publisher;
        this.realms = realms;
    }

    /** Returns the publisher of this Keycloak; null if the plug-in is disabled. */
    static KeycloakPublisher of(KeycloakSession session) {
        return of(session.getKeycloakSessionFactory());
    }

    static KeycloakPublisher of(KeycloakSessionFactory factory) {
        ProviderFactory<NotifierProvider> found = factory.getProviderFactory(NotifierProvider.class);
        return found instanceof NotifierProviderFactory notifier ? notifier.publisher() : null;
    }

    SessionEndedPublisher publisher() {
        return publisher;
    }

    PublisherSettings settings() {
        return publisher.settings();
    }

    Outbox outbox() {
        return publisher.outbox();
    }

    ClientSignOutRegistry clientSignOuts() {
        return clientSignOuts;
    }

    /** Returns whether the session ends of this realm are published. */
    boolean publishes(String realm) {
        return realms.includes(realm);
    }

    /** Runs a task of the plug-in within Keycloak's work. An error is logged and does not reach Keycloak. */
    void runGuarded(String description, Runnable task) {
        publisher.runGuarded(description, task);
    }
}
