package dev.notifier.spring;

import org.springframework.beans.factory.config.BeanFactoryPostProcessor;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.context.annotation.Bean;

/** Refuses a WebFlux application, in which the other beans would silently be missing. */
@AutoConfiguration
@ConditionalOnWebApplication(type = ConditionalOnWebApplication.Type.REACTIVE)
@ConditionalOnProperty(name = "notifier.enabled", matchIfMissing = true)
public class WebFluxFailureAutoConfiguration {
    @Bean
    static BeanFactoryPostProcessor notifierWebFluxFailure() {
        return beans -> {
            throw new NotifierConfigurationException("This is a WebFlux application, but Spring's authorization server and notifier's starter need a servlet application.",
                    "Add notifier-spring-boot-starter to the authorization server instead. If this is the server, set spring.main.web-application-type=servlet.");
        };
    }
}
