package dev.notifier.keycloak;

import org.keycloak.provider.Provider;

/** Gives the plug-in's providers their publisher. */
public interface NotifierProvider extends Provider {
    /** Returns the publisher of this process. */
    KeycloakPublisher publisher();
}
