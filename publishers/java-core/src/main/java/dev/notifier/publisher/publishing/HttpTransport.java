package dev.notifier.publisher.publishing;

import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.monitoring.FailureReason;
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

/** Posts events to notifier's API, one at a time. */
public final class HttpTransport implements Transport {
    private static final long MAX_RETRY_AFTER_SECONDS = 60;
    private static final int BUFFER_BYTES = 8192;

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
                builder.sslContext(TlsContextFactory.create(settings.tls()));
            }
            client = builder.build();
        }
    }

    @Override
    public void publish(List<OutgoingEvent> events, ResultListener results) throws PublishException, InterruptedException {
        connect();
        String token = SecretReader.read(settings.secret());
        for (int index = 0; index < events.size(); index++) {
            OutgoingEvent event = events.get(index);
            PublishResponse.Outcome outcome = post(event, token).toOutcome(event.id(), token);
            if (outcome instanceof PublishResponse.Confirmed) {
                results.onConfirmed(index);
            } else if (outcome instanceof PublishResponse.Refused refused) {
                results.onRefused(index, refused.text());
            } else if (outcome instanceof PublishResponse.Forbidden forbidden) {
                results.onForbidden(index, forbidden.text());
            } else if (outcome instanceof PublishResponse.Failed failed) {
                if (failed.failure().reason() == FailureReason.INTERCEPTED) {
                    results.onIntercepted(index, failed.failure().getMessage());
                }
                throw failed.failure();
            }
        }
    }

    private PublishResponse post(OutgoingEvent event, String token) throws PublishException, InterruptedException {
        HttpRequest.Builder request = HttpRequest.newBuilder(address).timeout(settings.publishLimit()).header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofByteArray(event.json()));
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
            throw timeout();
        } catch (ExecutionException failed) {
            drop();
            throw toException(failed.getCause());
        }
    }

    /**
     * Reads the body up to the limit of bytes, or as much as arrives in time. An incomplete body is no failure: a firewall that
     * never completes its page must not block the lane as an outage does.
     */
    private byte[] readStart(InputStream body, long deadline) throws InterruptedException {
        ByteArrayOutputStream start = new ByteArrayOutputStream();
        Future<?> reading = threads.submit(() -> {
            byte[] part = new byte[BUFFER_BYTES];
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
                body.close(); // closes the connection unless the body was read completely
            } catch (IOException closed) {
                drop();
            }
        }
        return start.toByteArray();
    }

    private PublishException timeout() {
        return new PublishException(FailureReason.TIMED_OUT, address.getAuthority() + " did not answer within " + settings.publishLimit().toMillis() + " ms");
    }

    private PublishException toException(Throwable failure) {
        String server = address.getAuthority();
        if (failure instanceof HttpTimeoutException) {
            return timeout();
        }
        if (failure instanceof SSLException) {
            return new PublishException(FailureReason.DENIED, "TLS with " + server + " fails: " + failure.getMessage() + "; check tls-ca-file and the certificate's names");
        }
        if (failure instanceof ConnectException) {
            return new PublishException(FailureReason.UNREACHABLE, server + " cannot be reached");
        }
        return new PublishException(FailureReason.DISCONNECTED, server + ": " + failure);
    }

    /** Returns the requested pause, at most a minute. A date is ignored. */
    private static Duration retryAfter(HttpResponse<?> response) {
        String value = response.headers().firstValue("Retry-After").orElse("");
        return value.matches("\\d{1,9}") ? Duration.ofSeconds(Math.min(Long.parseLong(value), MAX_RETRY_AFTER_SECONDS)) : Duration.ZERO;
    }

    @Override
    public void drop() {
        client = null; // its idle connections close once it is garbage-collected
    }

    @Override
    public void close() {
        client = null;
        threads.shutdownNow();
    }
}
