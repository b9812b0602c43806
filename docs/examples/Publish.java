import com.rabbitmq.client.*;
import java.util.concurrent.atomic.AtomicBoolean;

public class Publish {
    public static void main(String[] args) throws Exception {
        var factory = new ConnectionFactory();
        factory.setUri(System.getenv("AMQP_URL"));
        try (var connection = factory.newConnection(); var channel = connection.createChannel()) {
            var returned = new AtomicBoolean();
            channel.addReturnListener(message -> returned.set(true));
            channel.confirmSelect();
            var event = """
                {"id": "%s", "iss": "https://id.example.com", "sub": "248289761001", "sid": "08a5019c",
                 "clients": ["shop"]}""".formatted(java.util.UUID.randomUUID());
            var properties = new AMQP.BasicProperties.Builder().contentType("application/json").deliveryMode(2).build();
            channel.basicPublish("notifier.events", "session.ended", true, properties, event.getBytes("UTF-8"));
            channel.waitForConfirmsOrDie(10_000);
            if (returned.get()) throw new java.io.IOException("no queue is bound to notifier.events");
        }
    }
}
