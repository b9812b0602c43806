package dev.notifier.spring;

import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.proc.SecurityContext;
import java.util.List;
import org.springframework.beans.factory.config.BeanFactoryPostProcessor;
import org.springframework.beans.factory.config.BeanPostProcessor;
import org.springframework.beans.factory.config.ConfigurableListableBeanFactory;
import org.springframework.core.ResolvableType;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.token.JwtEncodingContext;
import org.springframework.security.oauth2.server.authorization.token.OAuth2TokenCustomizer;

/**
 * Decorates the application's own beans: the service of authorizations, the token customizer and the source of keys. Extends the endpoints
 * of registration and discovery, which Spring Security initializes like beans.
 */
final class BeanDecorator implements BeanFactoryPostProcessor, BeanPostProcessor {
    private static final ResolvableType TOKEN_CUSTOMIZER = ResolvableType.forClassWithGenerics(OAuth2TokenCustomizer.class, JwtEncodingContext.class);

    private ConfigurableListableBeanFactory beans;
    private List<String> customizers = List.of();

    /** Finds the customizer of JWTs by its definition. The authorization server uses one, and fails with several. */
    @Override
    public void postProcessBeanFactory(ConfigurableListableBeanFactory factory) {
        beans = factory;
        customizers = List.of(factory.getBeanNamesForType(TOKEN_CUSTOMIZER, true, false));
        if (customizers.size() > 1) {
            throw new NotifierConfigurationException("There are " + customizers.size() + " beans of type OAuth2TokenCustomizer<JwtEncodingContext>, but the"
                    + " authorization server uses one: " + String.join(", ", customizers),
                    "Combine them in one bean. notifier decorates it to set `sid`; it needs no bean for that.");
        }
    }

    @Override
    @SuppressWarnings("unchecked")
    public Object postProcessAfterInitialization(Object bean, String name) {
        if (bean instanceof OAuth2AuthorizationService service) {
            return new RecordingAuthorizationService(service, this::recorder);
        }
        if (customizers.contains(name)) {
            return new SidTokenCustomizer((OAuth2TokenCustomizer<JwtEncodingContext>) bean, this::recorder);
        }
        if (bean instanceof JWKSource<?> source) {
            PublicKeys keys = beans.getBeanProvider(PublicKeys.class).getIfAvailable();
            return keys == null ? source : keys.addTo((JWKSource<SecurityContext>) source);
        }
        BackchannelLogoutMetadata.extend(bean);
        return bean;
    }

    private SessionRecorder recorder() {
        return beans.getBean(SessionRecorder.class);
    }
}
