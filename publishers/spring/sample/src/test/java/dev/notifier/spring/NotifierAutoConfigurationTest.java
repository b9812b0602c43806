package dev.notifier.spring;

import static org.assertj.core.api.Assertions.assertThat;

import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.jwk.gen.RSAKeyGenerator;
import com.nimbusds.jose.jwk.source.ImmutableJWKSet;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.proc.SecurityContext;
import dev.notifier.spring.jackson.databind.JsonNode;
import dev.notifier.spring.jackson.databind.ObjectMapper;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import javax.sql.DataSource;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.springframework.boot.autoconfigure.AutoConfigurations;
import org.springframework.boot.diagnostics.FailureAnalysis;
import org.springframework.boot.diagnostics.FailureAnalyzer;
import org.springframework.boot.test.context.FilteredClassLoader;
import org.springframework.boot.test.context.runner.ReactiveWebApplicationContextRunner;
import org.springframework.boot.test.context.runner.WebApplicationContextRunner;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.boot.web.servlet.ServletListenerRegistrationBean;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.core.io.support.SpringFactoriesLoader;
import org.springframework.core.io.support.SpringFactoriesLoader.FailureHandler;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.mock.env.MockEnvironment;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.client.InMemoryRegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.token.JwtEncodingContext;
import org.springframework.security.oauth2.server.authorization.token.OAuth2TokenClaimsContext;
import org.springframework.security.oauth2.server.authorization.token.OAuth2TokenCustomizer;
import org.springframework.security.web.session.HttpSessionEventPublisher;
import org.springframework.session.MapSessionRepository;
import org.springframework.session.SessionRepository;

class NotifierAutoConfigurationTest {
    private static final AutoConfigurations CONFIGURATIONS = AutoConfigurations.of(NotifierAutoConfiguration.class, NotifierHealthAutoConfiguration.class,
            WebFluxFailureAutoConfiguration.class);

    @TempDir
    Path folder;

    private WebApplicationContextRunner runner;

    @Configuration(proxyBeanMethods = false)
    static class Server {
        @Bean
        RegisteredClientRepository clients() {
            return new InMemoryRegisteredClientRepository(TestPublisher.client("shop"));
        }

        @Bean
        JWKSource<SecurityContext> keys() throws Exception {
            return new ImmutableJWKSet<>(new JWKSet(new RSAKeyGenerator(2048).keyID("own").generate()));
        }
    }

    @Configuration(proxyBeanMethods = false)
    static class OneCustomizer {
        @Bean
        OAuth2TokenCustomizer<JwtEncodingContext> ownCustomizer() {
            return context -> { };
        }

        @Bean
        OAuth2TokenCustomizer<OAuth2TokenClaimsContext> opaqueTokenCustomizer() {
            return context -> { };
        }
    }

    @Configuration(proxyBeanMethods = false)
    static class SecondCustomizer {
        @Bean
        OAuth2TokenCustomizer<JwtEncodingContext> secondCustomizer() {
            return context -> { };
        }
    }

    @Configuration(proxyBeanMethods = false)
    static class Database {
        @Bean
        DataSource dataSource() {
            return TestDatabase.withTables();
        }
    }

    @Configuration(proxyBeanMethods = false)
    static class EmptyDatabase {
        @Bean
        DataSource dataSource() {
            return new TestDatabase();
        }
    }

    @Configuration(proxyBeanMethods = false)
    static class SpringSession {
        @Bean
        SessionRepository<?> sessions() {
            return new MapSessionRepository(new ConcurrentHashMap<>());
        }
    }

    @Configuration(proxyBeanMethods = false)
    static class SecondSpringSession {
        @Bean
        SessionRepository<?> otherSessions() {
            return new MapSessionRepository(new ConcurrentHashMap<>());
        }
    }

    /** As many applications have it. */
    @Configuration(proxyBeanMethods = false)
    static class OwnEventPublisher {
        @Bean
        ServletListenerRegistrationBean<HttpSessionEventPublisher> httpSessionEventPublisher() {
            return new ServletListenerRegistrationBean<>(new HttpSessionEventPublisher());
        }
    }

    @Configuration(proxyBeanMethods = false)
    static class Metrics {
        @Bean
        MeterRegistry registry() {
            return new SimpleMeterRegistry();
        }
    }

    @BeforeEach
    void configure() throws Exception {
        Path keys = folder.resolve("keys.json");
        Files.writeString(keys, new JWKSet(new RSAKeyGenerator(2048).keyID("notifier").generate()).toPublicJWKSet().toString());
        Files.writeString(folder.resolve("secret"), "token");
        runner = new WebApplicationContextRunner().withConfiguration(CONFIGURATIONS).withUserConfiguration(Server.class)
                .withPropertyValues("notifier.url=http://127.0.0.1:9", "notifier.secret-file=" + folder.resolve("secret"),
                        "notifier.outbox.folder=" + folder.resolve("outbox"), "notifier.public-keys=" + keys, "notifier.drain-limit=50ms");
    }

    /** Returns the description and the remedy that the application logs instead of a stack trace. */
    private static String analyze(Throwable failure) {
        assertThat(failure).isNotNull();
        FailureHandler skipThoseWithArguments = (type, name, cause) -> { };
        for (FailureAnalyzer analyzer : SpringFactoriesLoader.forDefaultResourceLocation().load(FailureAnalyzer.class, skipThoseWithArguments).stream()
                .filter(each -> each.getClass().getName().startsWith("dev.notifier")).toList()) {
            FailureAnalysis analysis = analyzer.analyze(failure);
            if (analysis != null) {
                return analysis.getDescription() + "\n" + analysis.getAction();
            }
        }
        throw new AssertionError("no analysis", failure);
    }

    private void assertRefused(WebApplicationContextRunner application, String... texts) {
        application.run(context -> assertThat(analyze(context.getStartupFailure())).contains(texts));
    }

    @Test
    void fourPropertiesSuffice() {
        runner.run(context -> {
            assertThat(context).hasNotFailed().hasSingleBean(OAuth2AuthorizationService.class);
            assertThat(context.getBean(OAuth2AuthorizationService.class)).isInstanceOf(RecordingAuthorizationService.class);
            assertThat(context.getBean(OAuth2TokenCustomizer.class)).isInstanceOf(SidTokenCustomizer.class);
            assertThat(context.getBean(JWKSource.class)).isNotInstanceOf(ImmutableJWKSet.class);
            assertThat(context.getBean(SessionStores.class).clients()).isInstanceOf(InMemorySessionClientStore.class);
            assertThat(context.getBean(FilterRegistrationBean.class).isEnabled()).isFalse();
            assertThat(context.getBean(SessionSweep.class).isRunning()).isTrue();
        });
    }

    @Test
    void itCanBeSwitchedOff() {
        runner.withPropertyValues("notifier.enabled=false", "notifier.url=").run(context -> assertThat(context).hasNotFailed().doesNotHaveBean(NotifierPublisher.class));
    }

    @Test
    void itRunsWithoutTheLibrariesThatAreOptional() {
        runner.withClassLoader(new FilteredClassLoader("org.springframework.jdbc", "org.springframework.session", "io.micrometer",
                "org.springframework.boot.actuate", "org.springframework.boot.health")).run(context -> assertThat(context).hasNotFailed().hasSingleBean(NotifierPublisher.class));
    }

    @Test
    void theTableIsInTheDatabaseAndTheFilterRunsWithSpringSession() {
        runner.withUserConfiguration(Database.class, SpringSession.class).run(context -> {
            assertThat(context).hasNotFailed();
            assertThat(context.getBean(SessionStores.class).clients()).isInstanceOf(JdbcSessionClientStore.class);
            assertThat(context.getBean(SessionStores.class).clients().node()).isEqualTo(SessionClient.SHARED);
            assertThat(context.getBean(FilterRegistrationBean.class).isEnabled()).isTrue();
        });
    }

    @Test
    void theMetricsHaveTheNamesOfThePlugIn() {
        runner.withUserConfiguration(Metrics.class).run(context -> assertThat(context.getBean(MeterRegistry.class).getMeters()).extracting(each -> each.getId().getName())
                .contains("notifier.publisher.written", "notifier.publisher.lost", "notifier.publisher.waiting", "notifier.publisher.oldest.age"));
    }

    @Test
    void theApplicationsCustomizerIsDecorated() {
        runner.withUserConfiguration(OneCustomizer.class).run(context -> {
            assertThat(context.getBean("ownCustomizer")).isInstanceOf(SidTokenCustomizer.class);
            assertThat(context.getBean("opaqueTokenCustomizer")).isNotInstanceOf(SidTokenCustomizer.class);
            assertThat(context).doesNotHaveBean("notifierTokenCustomizer");
        });
    }

    @Test
    void anEventPublisherOfTheApplicationIsNoConflict() {
        runner.withUserConfiguration(OwnEventPublisher.class).run(context -> assertThat(context).hasNotFailed());
    }

    @Test
    void aSecondRepositoryOfSessionsIsRefused() {
        assertRefused(runner.withUserConfiguration(SpringSession.class, SecondSpringSession.class), "several beans of type SessionRepository", "@Primary");
    }

    @Test
    void aSecondCustomizerIsRefused() {
        assertRefused(runner.withUserConfiguration(OneCustomizer.class, SecondCustomizer.class), "ownCustomizer", "secondCustomizer", "Combine them in one bean");
    }

    @Test
    void aMissingPropertyIsNamedWithItsRemedy() {
        assertRefused(runner.withPropertyValues("notifier.url="), "notifier.url is missing: give", "notifier.enabled=false");
        assertRefused(runner.withPropertyValues("notifier.outbox.folder="), "notifier.outbox.folder is missing: give");
        assertRefused(runner.withPropertyValues("notifier.public-keys="), "notifier.public-keys is missing", "notifier keys jwks");
        assertRefused(runner.withPropertyValues("notifier.url=amqps://idp@rabbitmq.example.com/", "notifier.secret-file="), "notifier.secret-file is missing");
        assertRefused(runner.withPropertyValues("notifier.sweep.interval=soon"), "notifier.sweep.interval is soon", "30s");
        assertRefused(runner.withPropertyValues("notifier.refresh-tokens.revoke=yes"), "notifier.refresh-tokens.revoke is yes", "true or false");
    }

    @Test
    void anUnreadableSecretIsRefused() {
        assertRefused(runner.withPropertyValues("notifier.secret-file=/nowhere/secret"), "notifier.secret-file names a file that cannot be read: /nowhere/secret");
    }

    @Test
    void anOutboxFolderThatOthersMayWriteToIsRefused() throws Exception {
        Path shared = Files.createDirectory(folder.resolve("shared"));
        Files.setPosixFilePermissions(shared, PosixFilePermissions.fromString("rwxrwxrwx"));
        assertRefused(runner.withPropertyValues("notifier.outbox.folder=" + shared), "notifier.outbox.folder", "other users may write to", "chmod 700 " + shared);
    }

    @Test
    void anOutboxFolderThatIsAFileIsRefused() {
        assertRefused(runner.withPropertyValues("notifier.outbox.folder=" + folder.resolve("secret")), "notifier.outbox.folder names a folder that cannot be used", "chown");
    }

    @Test
    void aPrivateKeyAmongThePublicKeysIsRefused() throws Exception {
        Path keys = Files.writeString(folder.resolve("private.json"), new JWKSet(new RSAKeyGenerator(2048).keyID("notifier").generate()).toString(false));
        assertRefused(runner.withPropertyValues("notifier.public-keys=" + keys), "notifier.public-keys", "private", "notifier keys jwks");
    }

    @Test
    void aMissingTableIsRefused() {
        assertRefused(runner.withUserConfiguration(EmptyDatabase.class), "notifier_session_client", "classpath:dev/notifier/spring/R__notifier_session_client.sql");
    }

    @Test
    void sessionsOfTheContainerThatContinueAfterARestartAreRefused() {
        WebApplicationContextRunner persistent = runner.withPropertyValues("server.servlet.session.persistent=true");
        assertRefused(persistent, "server.servlet.session.persistent is true", "Spring Session", "server.servlet.session.persistent=false", "devtools");
        assertRefused(persistent.withUserConfiguration(Database.class), "server.servlet.session.persistent is true");
        persistent.withUserConfiguration(Database.class, SpringSession.class).run(context -> assertThat(context).hasNotFailed());
    }

    @Test
    void aWebFluxApplicationIsRefused() {
        new ReactiveWebApplicationContextRunner().withConfiguration(CONFIGURATIONS)
                .run(context -> assertThat(analyze(context.getStartupFailure())).contains("WebFlux", "spring.main.web-application-type=servlet"));
    }

    @Test
    void theHealthIsUpOrDelayedAndNeverDown() {
        runner.run(context -> {
            NotifierPublisher publisher = context.getBean(NotifierPublisher.class);
            assertThat(NotifierHealthAutoConfiguration.status(publisher)).isEqualTo("UP");
            assertThat(NotifierHealthAutoConfiguration.details(publisher)).isEqualTo(Map.of("pending", 0L, "pendingInMemory", 0L, "oldestAgeSeconds", 0.0));
            assertThat(context).hasBean("notifierHealthIndicator");
        });
        runner.withPropertyValues("management.health.notifier.enabled=false").run(context -> assertThat(context).doesNotHaveBean("notifierHealthIndicator"));
    }

    @Test
    void theMetadataDescribesTheProperties() throws Exception {
        URL metadata = NotifierAutoConfiguration.class.getResource("/META-INF/spring-configuration-metadata.json");
        TreeSet<String> described = new TreeSet<>();
        for (JsonNode property : new ObjectMapper().readTree(metadata).get("properties")) {
            described.add(property.get("name").asText());
            assertThat(property.get("description").asText()).endsWith(".");
        }
        TreeSet<String> read = new TreeSet<>();
        NotifierSettings.read(new MockEnvironment() {
            @Override
            public String getProperty(String name) {
                read.add(name);
                return switch (name) {
                    case "notifier.url" -> "http://127.0.0.1:9";
                    case "notifier.outbox.folder" -> folder.resolve("outbox").toString();
                    default -> null;
                };
            }

            @Override
            public String getProperty(String name, String defaultValue) {
                read.add(name);
                return name.equals("notifier.public-keys") ? "none" : defaultValue;
            }
        });
        read.add("notifier.enabled");
        read.add("management.health.notifier.enabled");
        assertThat(described).isEqualTo(read);
    }
}
