package dev.notifier.spring;

import dev.notifier.publisher.monitoring.MicrometerMetrics;
import dev.notifier.publisher.monitoring.NoMetrics;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import io.micrometer.core.instrument.MeterRegistry;
import java.util.UUID;
import java.util.function.Supplier;
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
    NotifierPublisher notifierPublisher(NotifierSettings settings, ObjectProvider<MetricsFactory> metrics) {
        return new NotifierPublisher(settings, () -> metrics.getIfAvailable(() -> NoMetrics::new).get());
    }

    @Bean
    BoundedCalls notifierBoundedCalls() {
        return new BoundedCalls();
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
    SessionStores notifierSessionStores(ObjectProvider<StoreFactory> databases, ObjectProvider<SharedSessions> shared) {
        SharedSessions sessions = shared.getIfAvailable();
        String node = sessions == null ? UUID.randomUUID().toString() : SessionClient.SHARED;
        SessionClientStore database = databases.getIfAvailable(() -> name -> null).create(node);
        LOG.info("notifier: the clients of sessions are stored in {}", database == null ? "memory, since the application has no single database" : "the database");
        return new SessionStores(database == null ? new InMemorySessionClientStore() : database, sessions, node);
    }

    @Bean
    SessionRecorder notifierSessionRecorder(SessionStores stores, BoundedCalls calls, NotifierPublisher publisher) {
        return new SessionRecorder(stores, calls, publisher::onLost);
    }

    @Bean
    SessionEndPublisher notifierSessionEndPublisher(SessionStores stores, NotifierPublisher publisher, RegisteredClientRepository clients,
            ObjectProvider<AuthorizationServerSettings> server, NotifierSettings settings, BoundedCalls calls) {
        ClientEntryFactory entries = new ClientEntryFactory(clients, server.getIfAvailable(AuthorizationServerSettings.builder()::build),
                settings.publisher().includeClientMetadata());
        return new SessionEndPublisher(stores, publisher, entries, calls);
    }

    @Bean
    SessionSweep notifierSessionSweep(SessionStores stores, ObjectProvider<SessionRegistry> registry, SessionEndPublisher ends, BoundedCalls calls,
            NotifierSettings settings) {
        return new SessionSweep(stores, registry.getIfUnique(), ends, calls, settings.sweepInterval());
    }

    @Bean
    SessionEventListener notifierSessionEventListener(ObjectProvider<SessionEndPublisher> ends) {
        return new SessionEventListener(ends::getObject);
    }

    /** Makes the container's session events events of the application. */
    @Bean
    @ConditionalOnMissingBean
    HttpSessionEventPublisher httpSessionEventPublisher() {
        return new HttpSessionEventPublisher();
    }

    /** Runs only where sessions are shared: otherwise the container reports their ends. */
    @Bean
    FilterRegistrationBean<SessionEndFilter> notifierSessionEndFilter(ObjectProvider<SessionEndPublisher> ends, ObjectProvider<SharedSessions> sessions) {
        FilterRegistrationBean<SessionEndFilter> registration = new FilterRegistrationBean<>(new SessionEndFilter(ends::getObject));
        registration.setOrder(SessionEndFilter.ORDER);
        registration.setEnabled(sessions.getIfAvailable() != null);
        return registration;
    }

    /** Creates the metrics of one start. */
    interface MetricsFactory extends Supplier<PublisherMetrics> {
    }

    /** Creates the store in the application's database. */
    interface StoreFactory {
        /** Returns null without a single database. */
        SessionClientStore create(String node);
    }

    /** Micrometer's metrics. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(MeterRegistry.class)
    static class MetricsConfiguration {
        @Bean
        MetricsFactory notifierMetricsFactory(ObjectProvider<MeterRegistry> registries) {
            return () -> {
                MeterRegistry registry = registries.getIfUnique();
                return registry == null ? new NoMetrics() : new MicrometerMetrics(registry);
            };
        }
    }

    /** The table in the application's database. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(JdbcTemplate.class)
    static class StoreConfiguration {
        @Bean
        StoreFactory notifierStoreFactory(ObjectProvider<DataSource> dataSources, Environment environment) {
            return node -> {
                DataSource dataSource = dataSources.getIfUnique();
                String sessionTable = node.equals(SessionClient.SHARED) ? environment.getProperty("spring.session.jdbc.table-name", "SPRING_SESSION") : null;
                return dataSource == null ? null : new JdbcSessionClientStore(dataSource, node, sessionTable);
            };
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
            return repository == null ? null : id -> {
                Session session = repository.findById(id);
                return session == null || Boolean.TRUE.equals(session.getAttribute(SharedSessions.EXPIRED_ATTRIBUTE));
            };
        }
    }
}
