package dev.notifier.publisher.publishing;

import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.settings.PublisherSettings;
import dev.notifier.publisher.monitoring.DaemonThreadFactory;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.ConnectException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpTimeoutException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import javax.net.ssl.SSLException;

/** Posts events to notifier's API, one after the other. */
public final class HttpTransport implements Transport {
    private static final long LONGEST_WISH_SECONDS = 60;
    private static final int PART_BYTES = 8192;

    private final PublisherSettings settings;
    private final URI address;
    private final ExecutorService threads = Executors.newCachedThreadPool(new DaemonThreadFactory("notifier-http"));
    private HttpClient client;

    public HttpTransport(PublisherSettings settings, Lane lane) {
        this.settings = settings;
        URI events = ((PublisherSettings.Api) settings.endpoint()).events();
        this.address = lane == Lane.BULK ? URI.create(events + "?lane=bulk") : events;
    }

    @Override
    public void connect() throws PublishException {
        if (client == null) {
            HttpClient.Builder builder = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).followRedirects(HttpClient.Redirect.NEVER)
                    .connectTimeout(settings.publishLimit()).executor(threads);
            if ("https".equalsIgnoreCase(address.getScheme())) {
                builder.sslContext(TlsContextFactory.of(settings.tls()));
            }
            client = builder.build();
        }
    }

    @Override
    public void publish(List<OutgoingEvent> events, ResultListener results) throws PublishException, InterruptedException {
        connect();
        String token = SecretReader.read(settings.secret());
        for (int place = 0; place < events.size(); place++) {
            OutgoingEvent ending = events.get(place);
            PublishResponse.Outcome outcome = post(ending, token).toOutcome(ending.id(), token);
            if (outcome instanceof PublishResponse.Confirmed) {
                results.confirmed(place);
            } else if (outcome instanceof PublishResponse.Refused refused) {
                results.refused(place, refused.text());
            } else if (outcome instanceof PublishResponse.Failed failed) {
                if (failed.trouble().reason() == PublishException.Reason.INTERCEPTED) {
                    results.intercepted(place, failed.trouble().getMessage());
                }
                throw failed.trouble();
            }
        }
    }

    private PublishResponse post(OutgoingEvent ending, String token) throws PublishException, InterruptedException {
        HttpRequest.Builder request = HttpRequest.newBuilder(address).timeout(settings.publishLimit()).header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofByteArray(ending.event()));
        if (token != null) {
            request.header("Authorization", "Bearer " + token);
        }
        long deadline = System.nanoTime() + settings.publishLimit().toNanos();
        CompletableFuture<HttpResponse<InputStream>> answer = client.sendAsync(request.build(), HttpResponse.BodyHandlers.ofInputStream());
        try {
            HttpResponse<InputStream> response = answer.get(settings.publishLimit().toMillis(), TimeUnit.MILLISECONDS);
            return new PublishResponse(response.statusCode(), response.headers().firstValue("Content-Type").orElse(""),
                    response.headers().firstValue("Server").orElse(null), retryAfter(response), readStart(response.body(), deadline));
        } catch (TimeoutException late) {
            answer.cancel(true);
            drop();
            throw new PublishException(PublishException.Reason.TIMED_OUT, silent());
        } catch (ExecutionException failed) {
            drop();
            throw trouble(failed.getCause());
        }
    }

    /**
     * Reads the body up to the limit of bytes, or as much as arrives in time. The status is known: a firewall that never ends its
     * page must not hold the lane as an outage does.
     */
    private byte[] readStart(InputStream body, long deadline) throws InterruptedException {
        ByteArrayOutputStream start = new ByteArrayOutputStream();
        Future<?> reading = threads.submit(() -> {
            byte[] part = new byte[PART_BYTES];
            for (int count = body.read(part); count >= 0 && start.size() < PublishResponse.MAX_BODY_BYTES; count = body.read(part)) {
                start.write(part, 0, count);
            }
            return null;
        });
        try {
            reading.get(Math.max(0, deadline - System.nanoTime()), TimeUnit.NANOSECONDS);
        } catch (TimeoutException | ExecutionException partial) {
            drop();
        } finally {
            try {
                body.close(); // closes the connection unless all was read
            } catch (IOException closed) {
                drop();
            }
        }
        return start.toByteArray();
    }

    private String silent() {
        return address.getAuthority() + " did not answer within " + settings.publishLimit().toMillis() + " ms";
    }

    private PublishException trouble(Throwable failed) {
        String whom = address.getAuthority();
        if (failed instanceof HttpTimeoutException) {
            return new PublishException(PublishException.Reason.TIMED_OUT, silent());
        }
        if (failed instanceof SSLException) {
            return new PublishException(PublishException.Reason.DENIED, "TLS with " + whom + " fails: " + failed.getMessage() + "; see tls-ca-file and the certificate's names");
        }
        if (failed instanceof ConnectException) {
            return new PublishException(PublishException.Reason.UNREACHABLE, whom + " cannot be reached");
        }
        return new PublishException(PublishException.Reason.DISCONNECTED, whom + ": " + failed);
    }

    /** Seconds that the API wishes for; a date, or more than a minute, is not kept. */
    private static Duration retryAfter(HttpResponse<?> answer) {
        String wish = answer.headers().firstValue("Retry-After").orElse("");
        return wish.matches("\\d{1,9}") ? Duration.ofSeconds(Math.min(Long.parseLong(wish), LONGEST_WISH_SECONDS)) : Duration.ZERO;
    }

    @Override
    public void drop() {
        client = null; // its connections go with it
    }

    @Override
    public void close() {
        client = null;
        threads.shutdownNow();
    }
}
