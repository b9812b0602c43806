package dev.notifier.keycloak;

import org.keycloak.provider.Provider;
import org.keycloak.provider.ProviderFactory;
import org.keycloak.provider.Spi;

/** The SPI `notifier`, whose settings are `spi-notifier--publisher--…`. */
public class NotifierSpi implements Spi {
    @Override
    public boolean isInternal() {
        return false;
    }

    @Override
    public String getName() {
        return "notifier";
    }

    @Override
    public Class<? extends Provider> getProviderClass() {
        return NotifierProvider.class;
    }

    @Override
    @SuppressWarnings("rawtypes")
    public Class<? extends ProviderFactory> getProviderFactoryClass() {
        return NotifierProviderFactory.class;
    }
}
