package dev.notifier.publisher;

import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.outbox.SessionLookup;
import dev.notifier.publisher.outbox.Outbox;
import dev.notifier.publisher.publishing.AmqpTransport;
import dev.notifier.publisher.publishing.HttpTransport;
import dev.notifier.publisher.publishing.LanePublisher;
import dev.notifier.publisher.publishing.Transport;
import dev.notifier.publisher.settings.PublisherSettings;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import dev.notifier.publisher.monitoring.LogThrottle;
import dev.notifier.publisher.monitoring.PublisherMetrics;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.jboss.logging.Logger;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.KeycloakSessionFactory;
import org.keycloak.provider.ProviderFactory;

/** The outbox and the threads that publish it: one for a process. */
public final class Publisher implements AutoCloseable {
    private static final Logger LOG = Logger.getLogger(Publisher.class);

    private final PublisherSettings settings;
    private final MicrometerMetrics metrics;
    private final Outbox outbox;
    private final ClientSignOutRegistry clientSignOuts = new ClientSignOutRegistry();
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));
    private final List<LanePublisher> lanes = new ArrayList<>();
    private final List<Thread> threads = new ArrayList<>();

    private Publisher(PublisherSettings settings, MicrometerMetrics metrics, Outbox outbox) {
        this.settings = settings;
        this.metrics = metrics;
        this.outbox = outbox;
    }

    /**
     * Claim the outbox and begin to publish.
     *
     * @throws IOException if the outbox cannot be used
     */
    static Publisher start(PublisherSettings settings) throws IOException {
        MicrometerMetrics metrics = new MicrometerMetrics();
        Outbox outbox = Outbox.open(settings.outbox(), metrics);
        metrics.watch(outbox);
        Publisher publisher = new Publisher(settings, metrics, outbox);
        for (Lane lane : Lane.values()) {
            publisher.publish(lane);
        }
        return publisher;
    }

    private void publish(Lane lane) {
        Transport transport = settings.endpoint() instanceof PublisherSettings.Broker ? new AmqpTransport(settings, lane) : new HttpTransport(settings, lane);
        LanePublisher publishing = new LanePublisher(lane, outbox, transport, metrics);
        Thread thread = new DaemonThreadFactory("notifier-publisher-" + lane.word()).newThread(publishing);
        lanes.add(publishing);
        threads.add(thread);
        thread.start();
    }

    /** The publisher of this Keycloak; null if it is switched off. */
    static Publisher of(KeycloakSession session) {
        return of(session.getKeycloakSessionFactory());
    }

    static Publisher of(KeycloakSessionFactory factory) {
        ProviderFactory<NotifierProvider> found = factory.getProviderFactory(NotifierProvider.class);
        return found instanceof NotifierProviderFactory ours ? ours.publisher() : null;
    }

    /** Take up what earlier processes left. Sessions can be looked up from now on. */
    void takeUp(SessionLookup lookUp) {
        outbox.start(lookUp);
    }

    PublisherSettings settings() {
        return settings;
    }

    Outbox outbox() {
        return outbox;
    }

    ClientSignOutRegistry clientSignOuts() {
        return clientSignOuts;
    }

    /** Do something of ours within Keycloak's work. Whatever goes wrong with it is logged, and concerns Keycloak not. */
    void guarded(String what, Runnable ours) {
        try {
            ours.run();
        } catch (RuntimeException | LinkageError | StackOverflowError failed) {
            metrics.broken();
            if (throttle.tryAcquire(what + failed.getClass())) {
                LOG.errorf(failed, "notifier: %s failed, and its endings may not be published", what);
            }
        }
    }

    PublisherMetrics metrics() {
        return metrics;
    }

    /** Publish for a while yet, then end. What is left waits for the next start, and so does what is still written. */
    @Override
    public void close() {
        outbox.settle();
        long until = System.currentTimeMillis() + settings.drainLimit().toMillis();
        lanes.forEach(each -> each.stopBy(until));
        for (Thread thread : threads) {
            try {
                thread.join(Math.max(1, until - System.currentTimeMillis() + 100));
                thread.interrupt();
                thread.join(1_000);
            } catch (InterruptedException stopped) {
                Thread.currentThread().interrupt();
            }
        }
        outbox.retire();
        metrics.close();
    }
}
