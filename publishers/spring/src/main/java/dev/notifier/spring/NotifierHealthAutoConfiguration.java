package dev.notifier.spring;

import dev.notifier.publisher.monitoring.PendingEvents;
import java.util.Map;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnClass;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/**
 * Reports the pending events to Actuator. The status is `UP`, or `DELAYED` if the oldest event is older than a minute; neither makes the
 * application unhealthy or unready, since sign-ins and sign-outs do not depend on notifier.
 */
@AutoConfiguration(after = NotifierAutoConfiguration.class)
@ConditionalOnBean(NotifierPublisher.class)
@ConditionalOnProperty(name = "management.health.notifier.enabled", matchIfMissing = true)
public class NotifierHealthAutoConfiguration {
    private static final double MAX_AGE_SECONDS = 60;

    static String status(NotifierPublisher publisher) {
        return publisher.pendingEvents().oldestAgeSeconds() > MAX_AGE_SECONDS ? "DELAYED" : "UP";
    }

    static Map<String, Object> details(NotifierPublisher publisher) {
        PendingEvents pending = publisher.pendingEvents();
        return Map.of("pending", pending.pendingCount(), "pendingInMemory", pending.pendingInMemoryCount(), "oldestAgeSeconds", pending.oldestAgeSeconds());
    }

    /** The health of Spring Boot 3. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(name = "org.springframework.boot.actuate.health.HealthIndicator")
    static class Boot3Configuration {
        @Bean
        org.springframework.boot.actuate.health.HealthIndicator notifierHealthIndicator(NotifierPublisher publisher) {
            return () -> org.springframework.boot.actuate.health.Health.status(status(publisher)).withDetails(details(publisher)).build();
        }
    }

    /** The health of Spring Boot 4. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(name = "org.springframework.boot.health.contributor.HealthIndicator")
    static class Boot4Configuration {
        @Bean
        org.springframework.boot.health.contributor.HealthIndicator notifierHealthIndicator(NotifierPublisher publisher) {
            return () -> org.springframework.boot.health.contributor.Health.status(status(publisher)).withDetails(details(publisher)).build();
        }
    }
}
