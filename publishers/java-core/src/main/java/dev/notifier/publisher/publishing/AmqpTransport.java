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
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import dev.notifier.publisher.monitoring.FailureReason;
import dev.notifier.publisher.settings.PublisherSettings;
import java.io.IOException;
import java.net.Socket;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import javax.net.ssl.SSLException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Publishes to RabbitMQ: persistent, mandatory, confirmed. A connection is dropped if the broker does not respond within the limit. */
public final class AmqpTransport implements Transport {
    private static final Logger LOG = LoggerFactory.getLogger("dev.notifier.publisher.publishing.AmqpTransport");
    private static final String ROUTING_KEY = "session.ended";
    private static final int HEARTBEAT_SECONDS = 10;
    private static final int MESSAGES_PER_TIMEOUT = 100;
    private static final int PERSISTENT = 2;
    private static final int CLOSE_TIMEOUT_MILLIS = 500;

    private final PublisherSettings settings;
    private final PublisherSettings.Broker broker;
    private final String exchange;
    private final int limitMillis;
    private final ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor(new DaemonThreadFactory("notifier-amqp-watch"));
    private volatile Socket socket;
    private volatile String blockedReason;
    private Connection connection;
    private Channel channel;
    private ConfirmTracker confirms;

    public AmqpTransport(PublisherSettings settings, Lane lane) {
        this.settings = settings;
        this.broker = (PublisherSettings.Broker) settings.endpoint();
        this.exchange = lane == Lane.BULK ? settings.bulkExchange() : settings.exchange();
        this.limitMillis = (int) settings.publishLimit().toMillis();
    }

    @Override
    public void connect() throws PublishException {
        if (channel != null && channel.isOpen()) {
            return;
        }
        drop();
        blockedReason = null; // kept by a drop, so that the failure after it can be explained
        ConnectionFactory factory = createFactory();
        List<Address> addresses = broker.hosts().stream().map(each -> new Address(each.name(), each.port())).toList();
        ScheduledFuture<?> timeout = scheduleDrop((long) limitMillis * addresses.size());
        try {
            connection = factory.newConnection(addresses, settings.clientName());
            connection.addBlockedListener(reason -> blockedReason = reason, () -> blockedReason = null);
            channel = connection.createChannel();
            confirms = new ConfirmTracker(channel);
        } catch (IOException | TimeoutException | ShutdownSignalException failure) {
            dropConnection();
            throw toException(failure, FailureReason.UNREACHABLE);
        } finally {
            timeout.cancel(false);
        }
    }

    private ConnectionFactory createFactory() throws PublishException {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUsername(broker.user());
        factory.setPassword(SecretReader.read(settings.secret()));
        factory.setVirtualHost(broker.virtualHost());
        factory.setAutomaticRecoveryEnabled(false);
        factory.setTopologyRecoveryEnabled(false);
        factory.setRequestedHeartbeat(HEARTBEAT_SECONDS);
        factory.setConnectionTimeout(limitMillis);
        factory.setHandshakeTimeout(limitMillis);
        factory.setChannelRpcTimeout(limitMillis);
        factory.setShutdownTimeout(limitMillis);
        factory.setExceptionHandler(new DebugLogExceptionHandler());
        factory.setThreadFactory(new DaemonThreadFactory("notifier-amqp"));
        factory.setSocketConfigurator(opened -> {
            opened.setTcpNoDelay(true);
            opened.setSoLinger(true, 0); // close() does not wait for the peer, not even for TLS's close_notify
            socket = opened;
        });
        if (broker.tls()) {
            factory.useSslProtocol(TlsContextFactory.create(settings.tls()));
            factory.enableHostnameVerification(); // after setSocketConfigurator, which would replace it
        }
        return factory;
    }

    @Override
    public void publish(List<OutgoingEvent> events, ResultListener results) throws PublishException, InterruptedException {
        connect();
        ConfirmTracker batch = confirms;
        Channel current = channel;
        batch.startBatch(results, current.getNextPublishSeqNo());
        ScheduledFuture<?> timeout = scheduleDrop(limitMillis);
        try {
            for (int index = 0; index < events.size(); index++) {
                OutgoingEvent event = events.get(index);
                batch.onSending(index, event.id());
                current.basicPublish(exchange, ROUTING_KEY, true, createProperties(event), event.json());
                if (index % MESSAGES_PER_TIMEOUT == MESSAGES_PER_TIMEOUT - 1 && timeout.cancel(false)) {
                    timeout = scheduleDrop(limitMillis); // the broker reads, though perhaps slowly
                }
            }
            timeout.cancel(false);
            if (!batch.await(limitMillis)) {
                dropConnection();
                throw noConfirm();
            }
        } catch (IOException | AlreadyClosedException failure) {
            ShutdownSignalException cause = current.getCloseReason();
            boolean timedOut = timeout.isDone();
            dropConnection();
            throw timedOut ? noConfirm() : toException(cause == null ? failure : cause, FailureReason.DISCONNECTED);
        } finally {
            timeout.cancel(false);
        }
        ShutdownSignalException shutdown = batch.shutdownCause();
        if (shutdown != null) {
            dropConnection();
            throw timeout.isCancelled() ? toException(shutdown, FailureReason.DISCONNECTED) : noConfirm();
        }
        if (batch.hasReturned()) {
            throw new PublishException(FailureReason.UNROUTABLE, "no queue is bound to the exchange " + exchange
                    + ": start a worker of notifier on this broker and virtual host, or run `notifier topology declare`");
        }
        if (batch.hasRejected()) {
            throw new PublishException(FailureReason.REJECTED, "the broker's queue rejects events: check its limits and the broker's log");
        }
    }

    private AMQP.BasicProperties createProperties(OutgoingEvent event) {
        return new AMQP.BasicProperties.Builder().contentType("application/json").deliveryMode(PERSISTENT).messageId(event.id())
                .userId(broker.user()).build();
    }

    private PublishException noConfirm() {
        String why = blockedReason == null ? "it is frozen or overloaded" : "it blocks publishing: " + blockedReason;
        return new PublishException(FailureReason.TIMED_OUT, broker + " did not confirm within " + limitMillis + " ms: " + why);
    }

    private PublishException toException(Exception failure, FailureReason defaultReason) {
        Throwable cause = failure.getCause() instanceof ShutdownSignalException shutdown ? shutdown : failure;
        if (cause instanceof PossibleAuthenticationFailureException || cause instanceof AuthenticationFailureException) {
            return new PublishException(FailureReason.DENIED, broker + " refuses user " + broker.user()
                    + ": check the user, its password and the virtual host " + broker.virtualHost());
        }
        if (cause instanceof SSLException) {
            return new PublishException(FailureReason.DENIED, "TLS with " + broker + " fails: " + cause.getMessage()
                    + "; check tls-ca-file and the certificate's names");
        }
        if (cause instanceof TimeoutException) {
            return new PublishException(FailureReason.TIMED_OUT, broker + " did not answer within " + limitMillis + " ms");
        }
        if (cause instanceof ShutdownSignalException shutdown) {
            return toException(shutdown, defaultReason);
        }
        return new PublishException(defaultReason, broker + ": " + cause);
    }

    private PublishException toException(ShutdownSignalException shutdown, FailureReason defaultReason) {
        int code = shutdown.getReason() instanceof AMQP.Channel.Close channelClose ? channelClose.getReplyCode()
                : shutdown.getReason() instanceof AMQP.Connection.Close connectionClose ? connectionClose.getReplyCode() : 0;
        return switch (code) {
            case AMQP.NOT_FOUND -> new PublishException(FailureReason.UNROUTABLE, "there is no exchange " + exchange + " in virtual host "
                    + broker.virtualHost() + ": start a worker of notifier there, or run `notifier topology declare`");
            case AMQP.ACCESS_REFUSED -> new PublishException(FailureReason.DENIED, "user " + broker.user()
                    + " lacks a permission: it needs write on exchange " + exchange + " in virtual host " + broker.virtualHost());
            case AMQP.NOT_ALLOWED -> new PublishException(FailureReason.DENIED, broker + " does not allow user " + broker.user()
                    + " to use virtual host " + broker.virtualHost() + ": it is missing, the user has no access to it, or a limit of connections is reached");
            case 0 -> new PublishException(defaultReason, "the connection to " + broker + " is lost");
            default -> new PublishException(defaultReason, broker + " closed the connection or the channel (" + code + ")");
        };
    }

    private ScheduledFuture<?> scheduleDrop(long delayMillis) {
        return timer.schedule(this::drop, delayMillis, TimeUnit.MILLISECONDS);
    }

    /** Closes the socket, because the protocol's close would wait for a hanging broker. */
    @Override
    public void drop() {
        Socket open = socket;
        if (open != null) {
            try {
                open.close();
            } catch (IOException failure) {
                LOG.debug("notifier: {}", failure.toString());
            }
        }
        socket = null;
    }

    /** The library's own log lines are only for debugging, since each failure to publish is logged by the lane. */
    private static final class DebugLogExceptionHandler extends ForgivingExceptionHandler {
        @Override
        protected void log(String message, Throwable failure) {
            LOG.debug("notifier: {}", message, failure);
        }
    }

    /** Drops the connection. The next call opens another. */
    private void dropConnection() {
        drop();
        channel = null;
    }

    /** Closes the connection by the protocol if the broker responds at once; otherwise drops it. */
    @Override
    public void close() {
        Connection open = connection;
        if (open != null && open.isOpen() && !timer.isShutdown()) {
            ScheduledFuture<?> timeout = scheduleDrop(CLOSE_TIMEOUT_MILLIS);
            open.abort(CLOSE_TIMEOUT_MILLIS);
            timeout.cancel(false);
        }
        drop();
        timer.shutdownNow();
    }
}
