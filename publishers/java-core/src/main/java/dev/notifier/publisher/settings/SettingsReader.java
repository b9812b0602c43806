package dev.notifier.publisher.settings;

import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.function.UnaryOperator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/** Reads and validates the settings. Reports all mistakes at once. */
public final class SettingsReader {
    private static final Pattern DURATION = Pattern.compile("(\\d{1,12}(?:\\.\\d{1,6})?) ?(ms|s|m|h|d)?");
    private static final Map<String, Long> UNITS = Map.of("ms", 1L, "s", 1_000L, "m", 60_000L, "h", 3_600_000L, "d", 86_400_000L);
    private static final Pattern API_PATH = Pattern.compile("/v1(?:/events(?:/.*)?)?$", Pattern.CASE_INSENSITIVE);
    private static final int MIN_MILLIS = 50;
    private static final Duration MAX_LIMIT = Duration.ofHours(1);
    private static final int AMQP_PORT = 5672;
    private static final int AMQPS_PORT = 5671;

    private final UnaryOperator<String> values;
    private final UnaryOperator<String> names;
    private final List<String> mistakes = new ArrayList<>();

    private SettingsReader(UnaryOperator<String> values, UnaryOperator<String> names) {
        this.values = values;
        this.names = names;
    }

    /**
     * Reads the settings.
     *
     * @param values returns the value of a setting by its name in camel case, or null
     * @param prefix the text before the name of each setting, as users write it
     * @param clientName see {@link PublisherSettings#clientName}
     * @throws InvalidSettingsException if a setting is missing or wrong
     */
    public static PublisherSettings read(UnaryOperator<String> values, String prefix, String clientName) {
        return read(values, name -> prefix + toKebabCase(name), clientName);
    }

    /**
     * Reads the settings of a package that groups their names.
     *
     * @param names returns a setting's name as users write it
     */
    public static PublisherSettings read(UnaryOperator<String> values, UnaryOperator<String> names, String clientName) {
        return new SettingsReader(values, names).read(clientName);
    }

    private PublisherSettings read(String clientName) {
        PublisherSettings.Endpoint endpoint = endpoint();
        PublisherSettings.Secret secret = secret(endpoint);
        PublisherSettings.OutboxLimits outbox = new PublisherSettings.OutboxLimits(folder(), (int) number("outboxMaxEvents", 100_000, 1, Integer.MAX_VALUE),
                number("outboxMaxBytes", 268_435_456, 1 << 20, Long.MAX_VALUE), duration("outboxMaxAge", "30d", Duration.ofDays(3650)),
                duration("signOutLimit", "2s", MAX_LIMIT));
        PublisherSettings.Tls tls = tls(endpoint);
        PublisherSettings settings = new PublisherSettings(endpoint, clientName, secret, outbox, tls, text("exchange", "notifier.events"),
                text("bulkExchange", "notifier.bulk"), duration("publishLimit", "10s", MAX_LIMIT), duration("drainLimit", "5s", MAX_LIMIT),
                flag("includeClientMetadata", true));
        if (!mistakes.isEmpty()) {
            throw new InvalidSettingsException(mistakes);
        }
        return settings;
    }

    private PublisherSettings.Endpoint endpoint() {
        String url = text("url", null);
        if (url == null) {
            mistake("url", "is missing: give amqps://user@host:5671/vhost of the broker, or https://… of notifier's API");
            return null;
        }
        int colon = url.indexOf("://");
        String scheme = colon < 0 ? "" : url.substring(0, colon).toLowerCase(Locale.ROOT);
        try {
            return switch (scheme) {
                case "amqp", "amqps" -> broker(scheme.equals("amqps"), url.substring(colon + 3));
                case "http", "https" -> api(url);
                default -> throw new IllegalArgumentException("begins with none of amqps://, amqp://, https://, http://");
            };
        } catch (IllegalArgumentException wrong) {
            mistake("url", wrong.getMessage() == null ? "cannot be read" : wrong.getMessage());
            return null;
        }
    }

    private static PublisherSettings.Broker broker(boolean tls, String rest) {
        int slash = rest.indexOf('/');
        String authority = slash < 0 ? rest : rest.substring(0, slash);
        String path = slash < 0 ? "" : rest.substring(slash + 1);
        if (path.contains("/") || path.contains("?") || path.contains("#")) {
            throw new IllegalArgumentException("has more after the virtual host; write %2F for a slash in its name, and no options");
        }
        int at = authority.lastIndexOf('@');
        String[] user = at < 0 ? new String[] {""} : authority.substring(0, at).split(":", 2);
        if (user[0].isEmpty()) {
            throw new IllegalArgumentException("names no user: write amqps://user@host");
        }
        List<PublisherSettings.Host> hosts = new ArrayList<>();
        for (String host : authority.substring(at + 1).split(",", -1)) {
            hosts.add(host(host.trim(), tls ? AMQPS_PORT : AMQP_PORT));
        }
        return new PublisherSettings.Broker(List.copyOf(hosts), decode(user[0]), user.length > 1 ? decode(user[1]) : null,
                path.isEmpty() ? "/" : decode(path), tls);
    }

    private static PublisherSettings.Host host(String text, int port) {
        URI uri = URI.create("amqp://" + text);
        if (uri.getHost() == null || !text.equals(uri.getRawAuthority())) {
            throw new IllegalArgumentException("does not name a valid host");
        }
        String name = uri.getHost();
        return new PublisherSettings.Host(name.startsWith("[") ? name.substring(1, name.length() - 1) : name, uri.getPort() < 0 ? port : uri.getPort());
    }

    private static PublisherSettings.Api api(String url) {
        URI uri = URI.create(url);
        if (uri.getHost() == null || uri.getRawUserInfo() != null || uri.getRawQuery() != null || uri.getRawFragment() != null) {
            throw new IllegalArgumentException("must be a scheme, a host and perhaps a path; the API's token is the setting secret-file");
        }
        String base = url.replaceFirst("/+$", "");
        Matcher api = API_PATH.matcher(base);
        if (api.find()) {
            throw new IllegalArgumentException("includes the API's path: write " + base.substring(0, api.start()) + ", without " + api.group());
        }
        return new PublisherSettings.Api(URI.create(base + "/v1/events"));
    }

    private static String decode(String text) {
        return URLDecoder.decode(text.replace("+", "%2B"), StandardCharsets.UTF_8);
    }

    private PublisherSettings.Secret secret(PublisherSettings.Endpoint endpoint) {
        String value = text("secret", null);
        Path file = file("secretFile");
        String inUrl = endpoint instanceof PublisherSettings.Broker broker ? broker.password() : null;
        long sources = Stream.of(value, file, inUrl).filter(Objects::nonNull).count();
        if (sources > 1) {
            mistake("secret", "is given more than once: by secret, secret-file or in url; keep secret-file");
        } else if (sources == 0 && endpoint instanceof PublisherSettings.Broker) {
            mistake("secretFile", "is missing: give the file with the password of the broker's user");
        }
        return new PublisherSettings.Secret(value == null ? inUrl : value, file);
    }

    private Path folder() {
        String folder = text("outboxFolder", null);
        if (folder == null) {
            mistake("outboxFolder", "is missing: give a folder that outlives the process (in a container, on a volume), where events wait");
            return null;
        }
        return Path.of(folder);
    }

    private PublisherSettings.Tls tls(PublisherSettings.Endpoint endpoint) {
        PublisherSettings.Tls tls = new PublisherSettings.Tls(file("tlsCaFile"), file("tlsCertificateFile"), file("tlsKeyFile"));
        if ((tls.certificateFile() == null) != (tls.keyFile() == null)) {
            mistake(tls.keyFile() == null ? "tlsKeyFile" : "tlsCertificateFile", "is missing: a certificate and its key go together");
        }
        boolean plain = endpoint instanceof PublisherSettings.Broker broker && !broker.tls()
                || endpoint instanceof PublisherSettings.Api api && "http".equalsIgnoreCase(api.events().getScheme());
        if (plain && (tls.caFile() != null || tls.certificateFile() != null)) {
            mistake("url", "is without TLS, but TLS files are given: write amqps:// or https://");
        }
        return tls;
    }

    private Path file(String name) {
        String text = text(name, null);
        if (text == null) {
            return null;
        }
        Path file = Path.of(text);
        if (!Files.isReadable(file) || Files.isDirectory(file)) {
            mistake(name, "names a file that cannot be read: " + file);
        }
        return file;
    }

    /** Without a unit, the number is in seconds. */
    private Duration duration(String name, String defaultText, Duration max) {
        String text = text(name, defaultText);
        Matcher parsed = DURATION.matcher(text);
        if (parsed.matches()) {
            double millis = Double.parseDouble(parsed.group(1)) * UNITS.get(parsed.group(2) == null ? "s" : parsed.group(2));
            if (millis >= MIN_MILLIS && millis <= max.toMillis()) {
                return Duration.ofMillis(Math.round(millis));
            }
        }
        mistake(name, "is " + text + ": give a time such as " + defaultText + ", at least " + MIN_MILLIS + "ms and at most " + max.toHours() + "h");
        return max;
    }

    private long number(String name, long defaultValue, long min, long max) {
        String text = text(name, String.valueOf(defaultValue));
        try {
            long number = Long.parseLong(text);
            if (number >= min && number <= max) {
                return number;
            }
        } catch (NumberFormatException wrong) {
            // reported below
        }
        mistake(name, "is " + text + ": give a whole number, at least " + min);
        return defaultValue;
    }

    private boolean flag(String name, boolean defaultValue) {
        String text = text(name, String.valueOf(defaultValue));
        if (!text.equals("true") && !text.equals("false")) {
            mistake(name, "is " + text + ": give true or false");
        }
        return text.equals("true");
    }

    private String text(String name, String defaultValue) {
        String text = values.apply(name);
        return text == null || text.isBlank() ? defaultValue : text.trim();
    }

    private void mistake(String name, String text) {
        mistakes.add(names.apply(name) + " " + text);
    }

    /** Returns the name as users write it: `outbox-folder` for `outboxFolder`. */
    public static String toKebabCase(String name) {
        return name.replaceAll("([A-Z])", "-$1").toLowerCase(Locale.ROOT);
    }
}
