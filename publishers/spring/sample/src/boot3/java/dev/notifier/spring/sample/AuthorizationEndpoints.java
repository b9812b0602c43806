package dev.notifier.spring.sample;

import static org.springframework.security.config.Customizer.withDefaults;

import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.oauth2.server.authorization.config.annotation.web.configurers.OAuth2AuthorizationServerConfigurer;

/** The endpoints of the authorization server in the DSL of Spring Boot 3. */
final class AuthorizationEndpoints {
    private AuthorizationEndpoints() {
    }

    static void configure(HttpSecurity http) throws Exception {
        OAuth2AuthorizationServerConfigurer server = OAuth2AuthorizationServerConfigurer.authorizationServer();
        http.securityMatcher(server.getEndpointsMatcher()).with(server, configurer -> configurer.deviceAuthorizationEndpoint(withDefaults())
                .deviceVerificationEndpoint(withDefaults()).oidc(oidc -> oidc
                .clientRegistrationEndpoint(endpoint -> endpoint.authenticationProviders(SampleRegistration::configure))
                .providerConfigurationEndpoint(endpoint -> endpoint.providerConfigurationCustomizer(metadata -> metadata.claim("op_policy_uri", "https://id.example.com/policy")))));
    }
}
