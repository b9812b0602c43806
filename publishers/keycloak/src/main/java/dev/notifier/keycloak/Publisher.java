package dev.notifier.keycloak;

import dev.notifier.keycloak.event.Lane;
import dev.notifier.keycloak.outbox.LookUp;
import dev.notifier.keycloak.outbox.Outbox;
import dev.notifier.keycloak.publishing.AmqpTransport;
import dev.notifier.keycloak.publishing.HttpTransport;
import dev.notifier.keycloak.publishing.LanePublisher;
import dev.notifier.keycloak.publishing.Transport;
import dev.notifier.keycloak.settings.Settings;
import dev.notifier.keycloak.watch.Daemons;
import dev.notifier.keycloak.watch.Seldom;
import dev.notifier.keycloak.watch.Tally;
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

    private final Settings settings;
    private final MeteredTally tally;
    private final Outbox outbox;
    private final Partings partings = new Partings();
    private final Seldom aMinute = new Seldom(Duration.ofMinutes(1));
    private final List<LanePublisher> lanes = new ArrayList<>();
    private final List<Thread> threads = new ArrayList<>();

    private Publisher(Settings settings, MeteredTally tally, Outbox outbox) {
        this.settings = settings;
        this.tally = tally;
        this.outbox = outbox;
    }

    /**
     * Claim the outbox and begin to publish.
     *
     * @throws IOException if the outbox cannot be used
     */
    static Publisher start(Settings settings) throws IOException {
        MeteredTally tally = new MeteredTally();
        Outbox outbox = Outbox.open(settings.outbox(), tally);
        tally.watch(outbox);
        Publisher publisher = new Publisher(settings, tally, outbox);
        for (Lane lane : Lane.values()) {
            publisher.publish(lane);
        }
        return publisher;
    }

    private void publish(Lane lane) {
        Transport transport = settings.endpoint() instanceof Settings.Broker ? new AmqpTransport(settings, lane) : new HttpTransport(settings, lane);
        LanePublisher publishing = new LanePublisher(lane, outbox, transport, tally);
        Thread thread = Daemons.named("notifier-publisher-" + lane.word()).newThread(publishing);
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
    void takeUp(LookUp lookUp) {
        outbox.start(lookUp);
    }

    Settings settings() {
        return settings;
    }

    Outbox outbox() {
        return outbox;
    }

    Partings partings() {
        return partings;
    }

    /** Do something of ours within Keycloak's work. Whatever goes wrong with it is logged, and concerns Keycloak not. */
    void guarded(String what, Runnable ours) {
        try {
            ours.run();
        } catch (RuntimeException | LinkageError | StackOverflowError failed) {
            tally.broken();
            if (aMinute.allows(what + failed.getClass())) {
                LOG.errorf(failed, "notifier: %s failed, and its endings may not be published", what);
            }
        }
    }

    Tally tally() {
        return tally;
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
        tally.close();
    }
}
