package dev.notifier.publisher.publishing;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Address;
import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.AuthenticationFailureException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.PossibleAuthenticationFailureException;
import com.rabbitmq.client.ShutdownSignalException;
import com.rabbitmq.client.impl.ForgivingExceptionHandler;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.settings.PublisherSettings;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import java.io.IOException;
import java.net.Socket;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import javax.net.ssl.SSLException;
import org.jboss.logging.Logger;

/** Publishes to RabbitMQ: persistent, mandatory, confirmed. A connection that is silent for the limit is dropped hard. */
public final class AmqpTransport implements Transport {
    private static final Logger LOG = Logger.getLogger(AmqpTransport.class);
    private static final String ROUTING_KEY = "session.ended";
    private static final int HEARTBEAT_SECONDS = 10;
    private static final int LISTEN = 100;
    private static final int PERSISTENT = 2;

    private final PublisherSettings settings;
    private final PublisherSettings.Broker broker;
    private final String exchange;
    private final int limit;
    private final ScheduledExecutorService watch = Executors.newSingleThreadScheduledExecutor(new DaemonThreadFactory("notifier-amqp-watch"));
    private volatile Socket socket;
    private volatile String blocked;
    private Connection connection;
    private Channel channel;
    private ConfirmTracker confirms;

    public AmqpTransport(PublisherSettings settings, Lane lane) {
        this.settings = settings;
        this.broker = (PublisherSettings.Broker) settings.endpoint();
        this.exchange = lane == Lane.BULK ? settings.bulkExchange() : settings.exchange();
        this.limit = (int) settings.publishLimit().toMillis();
    }

    @Override
    public void connect() throws PublishException {
        if (channel != null && channel.isOpen()) {
            return;
        }
        drop();
        ConnectionFactory factory = factory();
        List<Address> addresses = broker.hosts().stream().map(each -> new Address(each.name(), each.port())).toList();
        ScheduledFuture<?> late = watch.schedule(this::drop, (long) limit * addresses.size(), TimeUnit.MILLISECONDS);
        try {
            connection = factory.newConnection(addresses, "notifier-keycloak");
            connection.addBlockedListener(why -> blocked = why, () -> blocked = null);
            channel = connection.createChannel();
            confirms = new ConfirmTracker(channel);
        } catch (IOException | TimeoutException | ShutdownSignalException failed) {
            forget();
            throw trouble(failed, PublishException.Reason.UNREACHABLE);
        } finally {
            late.cancel(false);
        }
    }

    private ConnectionFactory factory() throws PublishException {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUsername(broker.user());
        factory.setPassword(SecretReader.read(settings.secret()));
        factory.setVirtualHost(broker.virtualHost());
        factory.setAutomaticRecoveryEnabled(false);
        factory.setTopologyRecoveryEnabled(false);
        factory.setRequestedHeartbeat(HEARTBEAT_SECONDS);
        factory.setConnectionTimeout(limit);
        factory.setHandshakeTimeout(limit);
        factory.setChannelRpcTimeout(limit);
        factory.setShutdownTimeout(limit);
        factory.setExceptionHandler(new Quiet());
        factory.setThreadFactory(new DaemonThreadFactory("notifier-amqp"));
        factory.setSocketConfigurator(opened -> {
            opened.setTcpNoDelay(true);
            opened.setSoLinger(true, 0); // a close waits for nobody, not even TLS's farewell
            socket = opened;
        });
        if (broker.tls()) {
            factory.useSslProtocol(TlsContextFactory.of(settings.tls()));
            factory.enableHostnameVerification(); // added to the configurator: a configurator that is set later would replace it
        }
        return factory;
    }

    @Override
    public void publish(List<OutgoingEvent> events, ResultListener results) throws PublishException, InterruptedException {
        connect();
        ConfirmTracker now = confirms;
        Channel open = channel;
        now.expect(events.size(), results, open.getNextPublishSeqNo());
        ScheduledFuture<?> late = watch.schedule(this::drop, limit, TimeUnit.MILLISECONDS);
        try {
            for (int place = 0; place < events.size(); place++) {
                now.publishing(place, events.get(place).id());
                open.basicPublish(exchange, ROUTING_KEY, true, properties(events.get(place)), events.get(place).event());
                if (place % LISTEN == LISTEN - 1 && late.cancel(false)) { // the broker takes them, slowly perhaps
                    late = watch.schedule(this::drop, limit, TimeUnit.MILLISECONDS);
                }
            }
            late.cancel(false);
            if (!now.await(limit)) {
                forget();
                throw silent();
            }
        } catch (IOException | AlreadyClosedException failed) {
            ShutdownSignalException why = open.getCloseReason();
            boolean wasLate = late.isDone();
            forget();
            throw wasLate ? silent() : trouble(why == null ? failed : why, PublishException.Reason.DISCONNECTED);
        } finally {
            late.cancel(false);
        }
        ShutdownSignalException closed = now.closed();
        if (closed != null) {
            forget();
            throw late.isCancelled() ? trouble(closed, PublishException.Reason.DISCONNECTED) : silent();
        }
        if (now.returned()) {
            throw new PublishException(PublishException.Reason.UNROUTABLE, "no queue is bound to the exchange " + exchange
                    + ": start a worker of notifier on this broker and virtual host, or notifier topology declare");
        }
        if (now.refused()) {
            throw new PublishException(PublishException.Reason.REJECTED, "the broker's queue refuses events: see its limits and its log");
        }
    }

    private AMQP.BasicProperties properties(OutgoingEvent ending) {
        return new AMQP.BasicProperties.Builder().contentType("application/json").deliveryMode(PERSISTENT).messageId(ending.id())
                .userId(broker.user()).build();
    }

    private PublishException silent() {
        String why = blocked == null ? "it is frozen or overloaded" : "it blocks publishing: " + blocked;
        return new PublishException(PublishException.Reason.TIMED_OUT, broker + " did not confirm within " + limit + " ms: " + why);
    }

    private PublishException trouble(Exception failed, PublishException.Reason otherwise) {
        Throwable cause = failed.getCause() instanceof ShutdownSignalException inner ? inner : failed;
        if (cause instanceof PossibleAuthenticationFailureException || cause instanceof AuthenticationFailureException) {
            return new PublishException(PublishException.Reason.DENIED, broker + " does not let user " + broker.user() + " in: see the user, its password and the virtual host "
                    + broker.virtualHost());
        }
        if (cause instanceof SSLException) {
            return new PublishException(PublishException.Reason.DENIED, "TLS with " + broker + " fails: " + cause.getMessage() + "; see tls-ca-file and the certificate's names");
        }
        if (cause instanceof TimeoutException) {
            return new PublishException(PublishException.Reason.TIMED_OUT, broker + " did not answer within " + limit + " ms");
        }
        if (cause instanceof ShutdownSignalException closed) {
            return closed(closed, otherwise);
        }
        return new PublishException(otherwise, broker + ": " + cause);
    }

    private PublishException closed(ShutdownSignalException closed, PublishException.Reason otherwise) {
        int code = closed.getReason() instanceof AMQP.Channel.Close channelClose ? channelClose.getReplyCode()
                : closed.getReason() instanceof AMQP.Connection.Close connectionClose ? connectionClose.getReplyCode() : 0;
        return switch (code) {
            case AMQP.NOT_FOUND -> new PublishException(PublishException.Reason.UNROUTABLE, "there is no exchange " + exchange + " in virtual host " + broker.virtualHost()
                    + ": start a worker of notifier there, or notifier topology declare");
            case AMQP.ACCESS_REFUSED, AMQP.NOT_ALLOWED -> new PublishException(PublishException.Reason.DENIED, "user " + broker.user() + " may not do that: it needs the virtual host "
                    + broker.virtualHost() + " and write on " + exchange);
            default -> new PublishException(otherwise, broker + " closed the connection" + (code == 0 ? "" : " (" + code + ")"));
        };
    }

    /** Hard: a polite close waits for as long as the broker does. */
    @Override
    public void drop() {
        Socket open = socket;
        if (open != null) {
            try {
                open.close();
            } catch (IOException broken) {
                LOG.debugf("notifier: %s", broken);
            }
        }
        socket = null;
        blocked = null;
    }

    /** Errors that the library would log itself are logged once, as a failure to publish. */
    private static final class Quiet extends ForgivingExceptionHandler {
        @Override
        protected void log(String message, Throwable failed) {
            LOG.debugf(failed, "notifier: %s", message);
        }
    }

    /** The next use makes another connection. */
    private void forget() {
        drop();
        channel = null;
    }

    /** Close the connection by the protocol, if the broker answers at once. */
    private void politely() {
        Connection open = connection;
        if (open != null && open.isOpen() && !watch.isShutdown()) {
            ScheduledFuture<?> late = watch.schedule(this::drop, 500, TimeUnit.MILLISECONDS);
            open.abort(500);
            late.cancel(false);
        }
        drop();
    }

    @Override
    public void close() {
        politely();
        watch.shutdownNow();
    }
}
