package dev.notifier.keycloak;

import org.keycloak.provider.Provider;

/** What the parts of the plug-in share. */
public interface NotifierProvider extends Provider {
    /** The one publisher of this process. */
    Publisher publisher();
}
