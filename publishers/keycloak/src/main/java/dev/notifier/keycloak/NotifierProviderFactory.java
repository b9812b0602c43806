package dev.notifier.keycloak;

import org.keycloak.provider.ProviderFactory;

/** Owns the publisher of this process. */
public interface NotifierProviderFactory extends ProviderFactory<NotifierProvider> {
    /** Returns the publisher; null before the start and after the end. */
    KeycloakPublisher publisher();
}
