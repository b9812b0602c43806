package dev.notifier.spring;

import dev.notifier.publisher.monitoring.MicrometerMetrics;
import dev.notifier.publisher.monitoring.NoMetrics;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import io.micrometer.core.instrument.MeterRegistry;
import java.util.UUID;
import javax.sql.DataSource;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnClass;
import org.springframework.boot.autoconfigure.condition.ConditionalOnMissingBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.core.env.Environment;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.security.core.session.SessionRegistry;
import org.springframework.security.oauth2.server.authorization.InMemoryOAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.settings.AuthorizationServerSettings;
import org.springframework.security.oauth2.server.authorization.token.JwtEncodingContext;
import org.springframework.security.oauth2.server.authorization.token.OAuth2TokenCustomizer;
import org.springframework.security.web.session.HttpSessionEventPublisher;
import org.springframework.session.Session;
import org.springframework.session.SessionRepository;

/** Publishes each session end of an authorization server to notifier, unless `notifier.enabled` is false. */
@AutoConfiguration
@ConditionalOnClass(OAuth2AuthorizationService.class)
@ConditionalOnWebApplication(type = ConditionalOnWebApplication.Type.SERVLET)
@ConditionalOnProperty(name = "notifier.enabled", matchIfMissing = true)
public class NotifierAutoConfiguration {
    private static final Logger LOG = LoggerFactory.getLogger(NotifierAutoConfiguration.class);

    @Bean
    static BeanDecorator notifierBeanDecorator() {
        return new BeanDecorator();
    }

    @Bean
    NotifierSettings notifierSettings(Environment environment) {
        return NotifierSettings.read(environment);
    }

    /** Null if the application publishes the keys itself. */
    @Bean
    PublicKeys notifierPublicKeys(NotifierSettings settings) {
        return settings.publicKeys() == null ? null : new PublicKeys(settings.publicKeys());
    }

    @Bean
    NotifierPublisher notifierPublisher(NotifierSettings settings, ObjectProvider<PublisherMetrics> metrics) {
        return new NotifierPublisher(settings, metrics.getIfAvailable(NoMetrics::new));
    }

    /** Without such a bean the authorization server makes its own, which cannot be decorated. */
    @Bean
    @ConditionalOnMissingBean
    OAuth2AuthorizationService notifierAuthorizationService() {
        return new InMemoryOAuth2AuthorizationService();
    }

    @Bean
    @ConditionalOnMissingBean(value = JwtEncodingContext.class, parameterizedContainer = OAuth2TokenCustomizer.class)
    OAuth2TokenCustomizer<JwtEncodingContext> notifierTokenCustomizer() {
        return context -> { };
    }

    @Bean
    SessionStores notifierSessionStores(ObjectProvider<SessionClientStore> database, ObjectProvider<SharedSessions> sessions, Environment environment) {
        if (sessions.getIfAvailable() == null && environment.getProperty("server.servlet.session.persistent", Boolean.class, false)) {
            throw new NotifierConfigurationException("server.servlet.session.persistent is true, so the container's sessions continue after a restart, at which their"
                    + " end would be published.", "Store sessions by Spring Session, or set server.servlet.session.persistent=false: spring-boot-devtools sets it to true.");
        }
        SessionClientStore store = database.getIfAvailable(InMemorySessionClientStore::new);
        LOG.info("notifier: the clients of sessions are stored in {}", store instanceof InMemorySessionClientStore ? "memory" : "the database");
        return new SessionStores(store, sessions.getIfAvailable(), new BoundedCalls());
    }

    @Bean
    SessionRecorder notifierSessionRecorder(SessionStores stores, SessionEndPublisher ends, NotifierSettings settings, NotifierPublisher publisher) {
        return new SessionRecorder(stores, ends, settings.revokesRefreshTokens(), publisher::onLost);
    }

    @Bean
    SessionEndPublisher notifierSessionEndPublisher(SessionStores stores, NotifierPublisher publisher, RegisteredClientRepository clients,
            ObjectProvider<AuthorizationServerSettings> server, NotifierSettings settings) {
        ClientEntryFactory entries = new ClientEntryFactory(clients, server.getIfAvailable(AuthorizationServerSettings.builder()::build),
                settings.publisher().includeClientMetadata());
        return new SessionEndPublisher(stores, publisher, entries);
    }

    @Bean
    SessionSweep notifierSessionSweep(SessionStores stores, ObjectProvider<SessionRegistry> registry, NotifierPublisher publisher, SessionEndPublisher ends,
            NotifierSettings settings) {
        return new SessionSweep(stores, registry.getIfUnique(), publisher, ends, settings.sweepInterval());
    }

    /** Makes the container's session events events of the application. A second one, such as in a ServletListenerRegistrationBean, is harmless. */
    @Bean
    @ConditionalOnMissingBean
    HttpSessionEventPublisher notifierHttpSessionEventPublisher() {
        return new HttpSessionEventPublisher();
    }

    /** Runs only where sessions are shared: otherwise the container reports their ends. */
    @Bean
    FilterRegistrationBean<SessionEndFilter> notifierSessionEndFilter(ObjectProvider<SessionEndPublisher> ends, ObjectProvider<SharedSessions> sessions,
            Environment environment) {
        FilterRegistrationBean<SessionEndFilter> registration = new FilterRegistrationBean<>(new SessionEndFilter(ends::getObject));
        registration.setOrder(environment.getProperty("spring.session.servlet.filter-order", Integer.class, SessionEndFilter.SESSION_FILTER_ORDER) + 1);
        registration.setEnabled(sessions.getIfAvailable() != null);
        return registration;
    }

    /** Micrometer's metrics; null without a registry. The publisher closes them. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(MeterRegistry.class)
    static class MetricsConfiguration {
        @Bean(destroyMethod = "")
        PublisherMetrics notifierMetrics(ObjectProvider<MeterRegistry> registries) {
            MeterRegistry registry = registries.getIfUnique();
            return registry == null ? null : new MicrometerMetrics(registry);
        }
    }

    /** The store in the application's database; null without a single database. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(JdbcTemplate.class)
    static class StoreConfiguration {
        @Bean
        SessionClientStore notifierDatabaseStore(ObjectProvider<DataSource> dataSources, ObjectProvider<SharedSessions> sessions, Environment environment) {
            DataSource dataSource = dataSources.getIfUnique();
            if (dataSource == null) {
                return null;
            }
            return sessions.getIfAvailable() == null ? new JdbcSessionClientStore(dataSource, UUID.randomUUID().toString(), null)
                    : new JdbcSessionClientStore(dataSource, SessionClient.SHARED, environment.getProperty("spring.session.jdbc.table-name", "SPRING_SESSION"));
        }
    }

    /** Sessions of Spring Session. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(SessionRepository.class)
    static class SharedSessionsConfiguration {
        /** Null if the library is present, but not used. */
        @Bean
        SharedSessions notifierSharedSessions(ObjectProvider<SessionRepository<?>> repositories) {
            SessionRepository<?> repository = repositories.getIfUnique();
            if (repository == null && repositories.stream().findAny().isPresent()) {
                throw new NotifierConfigurationException("There are several beans of type SessionRepository, and none is primary.",
                        "Mark the bean that has the sessions of the authorization server as @Primary.");
            }
            return repository == null ? null : id -> {
                Session session = repository.findById(id);
                return session == null || Boolean.TRUE.equals(session.getAttribute(SharedSessions.EXPIRED_ATTRIBUTE));
            };
        }
    }
}
