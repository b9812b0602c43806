import com.rabbitmq.client.*;
import java.util.UUID;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicBoolean;
import javax.net.ssl.SSLContext;

public class Publish {
    static final int LIMIT = 5_000; // ms

    public static void main(String[] args) throws Exception {
        var event = """
            {"id": "%s", "iss": "https://id.example.com", "sub": "248289761001", "sid": "08a5019c",
             "clients": ["shop"]}""".formatted(UUID.randomUUID());
        var publishing = new FutureTask<>(() -> publish(event));
        var thread = new Thread(publishing);
        thread.setDaemon(true);
        thread.start();
        if (!publishing.get(LIMIT, TimeUnit.MILLISECONDS)) throw new java.io.IOException("the event was not taken");
    }

    static boolean publish(String event) throws Exception {
        var factory = new ConnectionFactory();
        factory.setUri(System.getenv("AMQP_URL"));
        if (factory.isSSL()) { // before 5.37 setUri trusts every certificate
            factory.useSslProtocol(SSLContext.getDefault());
            factory.enableHostnameVerification();
        }
        factory.setConnectionTimeout(LIMIT);
        factory.setHandshakeTimeout(LIMIT);
        factory.setChannelRpcTimeout(LIMIT);
        var connection = factory.newConnection();
        try {
            var channel = connection.createChannel();
            var returned = new AtomicBoolean();
            channel.addReturnListener(message -> returned.set(true));
            channel.confirmSelect();
            var properties = new AMQP.BasicProperties.Builder().contentType("application/json").deliveryMode(2)
                .userId(factory.getUsername()).build();
            channel.basicPublish("notifier.events", "session.ended", true, properties, event.getBytes("UTF-8"));
            return channel.waitForConfirms(LIMIT) && !returned.get(); // returned: no queue is bound to the exchange
        } finally {
            connection.abort(1_000); // close() waits for as long as the broker does
        }
    }
}
