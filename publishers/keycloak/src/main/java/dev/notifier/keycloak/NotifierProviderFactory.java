package dev.notifier.keycloak;

import org.keycloak.provider.ProviderFactory;

/** Makes what the parts of the plug-in share. */
public interface NotifierProviderFactory extends ProviderFactory<NotifierProvider> {
    /** The one publisher of this process; null before the start and after the end. */
    Publisher publisher();
}
