package dev.notifier.keycloak.publishing;

import dev.notifier.keycloak.event.Ending;
import dev.notifier.keycloak.event.Lane;
import dev.notifier.keycloak.settings.Settings;
import dev.notifier.keycloak.watch.Daemons;
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
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import javax.net.ssl.SSLException;

/** Posts events to notifier's API, one after the other. Only 202 confirms that an event is durable. */
public final class HttpTransport implements Transport {
    private static final int TAKEN = 202;
    private static final int MALFORMED = 400;
    private static final int UNAUTHORIZED = 401;
    private static final int FORBIDDEN = 403;
    private static final int NOT_FOUND = 404;
    private static final int TOO_LARGE = 413;
    private static final long LONGEST_WISH_SECONDS = 60;

    private final Settings settings;
    private final URI address;
    private final ExecutorService threads = Executors.newCachedThreadPool(Daemons.named("notifier-http"));
    private HttpClient client;

    public HttpTransport(Settings settings, Lane lane) {
        this.settings = settings;
        URI events = ((Settings.Api) settings.endpoint()).events();
        this.address = lane == Lane.BULK ? URI.create(events + "?lane=bulk") : events;
    }

    @Override
    public void connect() throws Trouble {
        if (client == null) {
            HttpClient.Builder builder = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).followRedirects(HttpClient.Redirect.NEVER)
                    .connectTimeout(settings.publishLimit()).executor(threads);
            if ("https".equalsIgnoreCase(address.getScheme())) {
                builder.sslContext(TlsContext.of(settings.tls()));
            }
            client = builder.build();
        }
    }

    @Override
    public void publish(List<Ending> endings, Fates fates) throws Trouble, InterruptedException {
        connect();
        String token = SecretReader.read(settings.secret());
        for (int place = 0; place < endings.size(); place++) {
            HttpResponse<Void> answer = post(endings.get(place), token);
            switch (answer.statusCode()) {
                case TAKEN -> fates.confirmed(place);
                case MALFORMED, TOO_LARGE -> fates.refused(place, "the API answers " + answer.statusCode());
                default -> throw trouble(answer);
            }
        }
    }

    private HttpResponse<Void> post(Ending ending, String token) throws Trouble, InterruptedException {
        HttpRequest.Builder request = HttpRequest.newBuilder(address).timeout(settings.publishLimit()).header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofByteArray(ending.event()));
        if (token != null) {
            request.header("Authorization", "Bearer " + token);
        }
        CompletableFuture<HttpResponse<Void>> answer = client.sendAsync(request.build(), HttpResponse.BodyHandlers.discarding());
        try {
            return answer.get(settings.publishLimit().toMillis(), TimeUnit.MILLISECONDS); // its own limit ends with the headers
        } catch (TimeoutException late) {
            answer.cancel(true);
            drop();
            throw new Trouble(Trouble.Reason.TIMED_OUT, silent());
        } catch (ExecutionException failed) {
            drop();
            throw trouble(failed.getCause());
        }
    }

    private String silent() {
        return address.getAuthority() + " did not answer within " + settings.publishLimit().toMillis() + " ms";
    }

    private Trouble trouble(Throwable failed) {
        String whom = address.getAuthority();
        if (failed instanceof HttpTimeoutException) {
            return new Trouble(Trouble.Reason.TIMED_OUT, silent());
        }
        if (failed instanceof SSLException) {
            return new Trouble(Trouble.Reason.DENIED, "TLS with " + whom + " fails: " + failed.getMessage() + "; see tls-ca-file and the certificate's names");
        }
        if (failed instanceof ConnectException) {
            return new Trouble(Trouble.Reason.UNREACHABLE, whom + " cannot be reached");
        }
        return new Trouble(Trouble.Reason.DISCONNECTED, whom + ": " + failed);
    }

    private Trouble trouble(HttpResponse<Void> answer) {
        int status = answer.statusCode();
        String text = "the API answers " + status;
        return switch (status) {
            case UNAUTHORIZED -> new Trouble(Trouble.Reason.DENIED, text + ": the token of secret-file is unknown to it");
            case FORBIDDEN -> new Trouble(Trouble.Reason.DENIED, text + ": its token may not publish, or not for this issuer (api.tokens_file, issuers.<iss>.publishers)");
            case NOT_FOUND -> new Trouble(Trouble.Reason.REJECTED, text + ": is url that of notifier's API?");
            default -> new Trouble(Trouble.Reason.REJECTED, text + (status < UNAUTHORIZED ? ": is url that of notifier's API?" : ""), retryAfter(answer));
        };
    }

    /** Seconds that the API wishes for; a date, or more than a minute, is not kept. */
    private static Duration retryAfter(HttpResponse<Void> answer) {
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
