package dev.notifier.spring.sample;

import java.util.List;
import org.springframework.core.convert.converter.Converter;
import org.springframework.security.authentication.AuthenticationProvider;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.oidc.OidcClientRegistration;
import org.springframework.security.oauth2.server.authorization.oidc.authentication.OidcClientRegistrationAuthenticationProvider;
import org.springframework.security.oauth2.server.authorization.oidc.converter.OidcClientRegistrationRegisteredClientConverter;
import org.springframework.security.oauth2.server.authorization.settings.ClientSettings;

/** Dynamic registration with a converter of the application, as it has for metadata of its own: a registered client needs neither PKCE nor consent. */
final class SampleRegistration {
    private static final Converter<OidcClientRegistration, RegisteredClient> SPRING = new OidcClientRegistrationRegisteredClientConverter();

    private SampleRegistration() {
    }

    static void configure(List<AuthenticationProvider> providers) {
        for (AuthenticationProvider each : providers) {
            if (each instanceof OidcClientRegistrationAuthenticationProvider provider) {
                provider.setRegisteredClientConverter(registration -> RegisteredClient.from(SPRING.convert(registration)).scope("openid")
                        .clientSettings(ClientSettings.builder().requireProofKey(false).requireAuthorizationConsent(false).build()).build());
            }
        }
    }
}
