package dev.notifier.publisher.publishing;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.impl.Frame;
import com.rabbitmq.client.impl.LongStringHelper;
import com.rabbitmq.client.impl.Method;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.monitoring.FailureReason;
import dev.notifier.publisher.settings.SettingsReader;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A broker that blocks publishing after the first event, as RabbitMQ does during an alarm. */
class BlockedBrokerTest {
    private static final int PROTOCOL_HEADER_BYTES = 8;

    @TempDir
    Path folder;

    @Test
    void theReasonForWhichTheBrokerBlocksIsReported() throws Exception {
        try (ServerSocket server = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            Thread broker = new Thread(() -> serve(server));
            broker.start();
            Map<String, String> given = Map.of("url", "amqp://idp@127.0.0.1:" + server.getLocalPort() + "/", "secret", "s3cret",
                    "outboxFolder", folder.toString(), "publishLimit", "3s");
            AmqpTransport transport = new AmqpTransport(SettingsReader.read(given::get, "", "test"), Lane.EVENTS);
            OutgoingEvent event = new OutgoingEvent(Lane.EVENTS, "a", null, "{}".getBytes(StandardCharsets.UTF_8));
            PublishException failure = assertThrows(PublishException.class, () -> transport.publish(List.of(event), new IgnoredResults()));
            transport.close();
            broker.join();
            assertEquals(FailureReason.TIMED_OUT, failure.reason());
            assertTrue(failure.getMessage().endsWith("it blocks publishing: low on memory"), failure::getMessage);
        }
    }

    private static void serve(ServerSocket server) {
        try (Socket socket = server.accept(); DataInputStream from = new DataInputStream(socket.getInputStream());
                DataOutputStream to = new DataOutputStream(socket.getOutputStream())) {
            from.readNBytes(PROTOCOL_HEADER_BYTES);
            send(to, 0, new AMQP.Connection.Start.Builder().versionMajor(0).versionMinor(9).serverProperties(Map.of())
                    .mechanisms(LongStringHelper.asLongString("PLAIN")).locales(LongStringHelper.asLongString("en_US")).build());
            for (int type = from.read(); type >= 0; type = from.read()) {
                int channel = from.readUnsignedShort();
                byte[] payload = from.readNBytes(from.readInt());
                from.readByte(); // the end of the frame
                if (type == AMQP.FRAME_METHOD) {
                    respond(to, channel, (payload[1] & 0xff) + "." + (payload[3] & 0xff));
                }
            }
        } catch (IOException dropped) {
            // the transport has dropped the connection
        }
    }

    private static void respond(DataOutputStream to, int channel, String method) throws IOException {
        switch (method) {
            case "10.11" -> send(to, 0, new AMQP.Connection.Tune.Builder().channelMax(10).frameMax(131_072).heartbeat(0).build()); // start-ok
            case "10.40" -> send(to, 0, new AMQP.Connection.OpenOk.Builder().build()); // open
            case "20.10" -> send(to, channel, new AMQP.Channel.OpenOk.Builder().build()); // open
            case "85.10" -> send(to, channel, new AMQP.Confirm.SelectOk.Builder().build()); // select
            case "60.40" -> send(to, 0, new AMQP.Connection.Blocked.Builder().reason("low on memory").build()); // publish
            default -> { }
        }
    }

    private static void send(DataOutputStream to, int channel, Object method) throws IOException {
        Frame frame = ((Method) method).toFrame(channel);
        frame.writeTo(to);
        to.flush();
    }

    private static final class IgnoredResults implements Transport.ResultListener {
        @Override
        public void onConfirmed(int index) {
            throw new IllegalStateException("nothing is confirmed");
        }

        @Override
        public void onRefused(int index, String why) {
            throw new IllegalStateException("nothing is refused");
        }
    }
}
