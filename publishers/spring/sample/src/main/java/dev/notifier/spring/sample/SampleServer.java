package dev.notifier.spring.sample;

import static org.springframework.security.config.Customizer.withDefaults;

import com.nimbusds.jose.JOSEException;
import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.jwk.RSAKey;
import com.nimbusds.jose.jwk.gen.RSAKeyGenerator;
import com.nimbusds.jose.jwk.source.ImmutableJWKSet;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.proc.SecurityContext;
import dev.notifier.spring.BackchannelLogoutSettings;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Profile;
import org.springframework.core.annotation.Order;
import org.springframework.http.MediaType;
import org.springframework.jdbc.core.JdbcOperations;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.session.SessionRegistry;
import org.springframework.security.core.session.SessionRegistryImpl;
import org.springframework.security.core.userdetails.User;
import org.springframework.security.core.userdetails.UserDetailsService;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.ClientAuthenticationMethod;
import org.springframework.security.oauth2.server.authorization.JdbcOAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.client.InMemoryRegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.client.JdbcRegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.settings.AuthorizationServerSettings;
import org.springframework.security.oauth2.server.authorization.settings.ClientSettings;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.security.web.authentication.LoginUrlAuthenticationEntryPoint;
import org.springframework.security.web.util.matcher.MediaTypeRequestMatcher;
import org.springframework.session.FindByIndexNameSessionRepository;
import org.springframework.session.Session;
import org.springframework.session.security.SpringSessionBackedSessionRegistry;

/**
 * An authorization server for tests. Any user signs in with the password `pw`.
 *
 * Its profile selects the stores: `memory` has no database; `table` has a database, and sessions in memory; `jdbc` has sessions,
 * authorizations and clients in the database.
 */
@SpringBootApplication
public class SampleServer {
    public static void main(String[] args) {
        SpringApplication.run(SampleServer.class, args);
    }

    @Bean
    @Order(1)
    SecurityFilterChain authorizationChain(HttpSecurity http, @Value("${sample.max-sessions:-1}") int maxSessions, SessionRegistry registry) throws Exception {
        AuthorizationEndpoints.configure(http);
        return http.authorizeHttpRequests(all -> all.anyRequest().authenticated())
                .exceptionHandling(on -> on.defaultAuthenticationEntryPointFor(new LoginUrlAuthenticationEntryPoint("/login"),
                        new MediaTypeRequestMatcher(MediaType.TEXT_HTML)))
                .sessionManagement(session -> session.maximumSessions(maxSessions).sessionRegistry(registry)).build();
    }

    @Bean
    @Order(2)
    SecurityFilterChain applicationChain(HttpSecurity http, @Value("${sample.max-sessions:-1}") int maxSessions, SessionRegistry registry) throws Exception {
        return http.authorizeHttpRequests(all -> all.requestMatchers("/sample/admin/**", "/actuator/**").permitAll().anyRequest().authenticated())
                .formLogin(withDefaults()).csrf(csrf -> csrf.disable())
                .sessionManagement(session -> session.maximumSessions(maxSessions).sessionRegistry(registry)).build();
    }

    /** The registry of this process, or with `sample.shared-registry` that of Spring Session. */
    @Bean
    SessionRegistry sessionRegistry(@Value("${sample.shared-registry:false}") boolean isShared,
            ObjectProvider<FindByIndexNameSessionRepository<? extends Session>> sessions) {
        return isShared ? new SpringSessionBackedSessionRegistry<>(sessions.getObject()) : new SessionRegistryImpl();
    }

    @Bean
    UserDetailsService users() {
        return name -> User.withUsername(name).password("{noop}pw").roles("USER").build();
    }

    @Bean
    List<RegisteredClient> sampleClients(@Value("${sample.clients:shop,mail}") List<String> names,
            @Value("${sample.backchannel-logout-uri:https://%s.example.com/backchannel-logout}") String uri) {
        List<RegisteredClient> clients = new ArrayList<>();
        for (String name : names) {
            clients.add(RegisteredClient.withId(UUID.nameUUIDFromBytes(name.getBytes(StandardCharsets.UTF_8)).toString()).clientId(name).clientSecret("{noop}s-" + name)
                    .clientAuthenticationMethod(ClientAuthenticationMethod.CLIENT_SECRET_BASIC)
                    .authorizationGrantType(AuthorizationGrantType.AUTHORIZATION_CODE).authorizationGrantType(AuthorizationGrantType.REFRESH_TOKEN)
                    .authorizationGrantType(AuthorizationGrantType.DEVICE_CODE).scope("offline_access").scope("files")
                    .redirectUri("http://127.0.0.1/callback").postLogoutRedirectUri("http://127.0.0.1/").scope("openid")
                    .clientSettings(ClientSettings.builder().requireProofKey(false).requireAuthorizationConsent(false)
                            .setting(BackchannelLogoutSettings.URI, String.format(uri, name)).setting(BackchannelLogoutSettings.SESSION_REQUIRED, true).build())
                    .build());
        }
        clients.add(RegisteredClient.withId("registrar").clientId("registrar").clientSecret("{noop}s-registrar")
                .clientAuthenticationMethod(ClientAuthenticationMethod.CLIENT_SECRET_BASIC)
                .authorizationGrantType(AuthorizationGrantType.CLIENT_CREDENTIALS).scope("client.create").build());
        return clients;
    }

    @Bean
    @Profile("!jdbc")
    RegisteredClientRepository clientsInMemory(List<RegisteredClient> sampleClients) {
        return new InMemoryRegisteredClientRepository(sampleClients);
    }

    @Bean
    @Profile("jdbc")
    RegisteredClientRepository clientsInDatabase(JdbcOperations jdbc, List<RegisteredClient> sampleClients) {
        JdbcRegisteredClientRepository repository = new JdbcRegisteredClientRepository(jdbc);
        sampleClients.forEach(repository::save);
        return repository;
    }

    @Bean
    @Profile("jdbc")
    OAuth2AuthorizationService authorizationsInDatabase(JdbcOperations jdbc, RegisteredClientRepository clients) {
        return new JdbcOAuth2AuthorizationService(jdbc, clients);
    }

    @Bean
    JWKSource<SecurityContext> jwkSource() throws JOSEException {
        RSAKey key = new RSAKeyGenerator(2048).keyID("server").generate();
        return new ImmutableJWKSet<>(new JWKSet(key));
    }

    @Bean
    AuthorizationServerSettings serverSettings(@Value("${sample.issuer:}") String issuer) {
        AuthorizationServerSettings.Builder settings = AuthorizationServerSettings.builder();
        return (issuer.isEmpty() ? settings.multipleIssuersAllowed(true) : settings.issuer(issuer)).build();
    }
}
