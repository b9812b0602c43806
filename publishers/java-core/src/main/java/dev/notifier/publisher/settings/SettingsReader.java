package dev.notifier.publisher.settings;

import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.UnaryOperator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Reads the settings by their names, and gathers every mistake before it refuses. */
public final class SettingsReader {
    /** What users type before a setting's name. */
    public static final String PREFIX = "spi-notifier--publisher--";

    private static final Pattern TIME = Pattern.compile("(\\d{1,12}(?:\\.\\d{1,6})?) ?(ms|s|m|h|d)?");
    private static final Map<String, Long> UNITS = Map.of("ms", 1L, "s", 1_000L, "m", 60_000L, "h", 3_600_000L, "d", 86_400_000L);
    private static final Pattern API_PATH = Pattern.compile("/v1(?:/events(?:/.*)?)?$", Pattern.CASE_INSENSITIVE);
    private static final int LEAST_MILLIS = 50;
    private static final Duration LONGEST_LIMIT = Duration.ofHours(1);
    private static final int AMQP_PORT = 5672;
    private static final int AMQPS_PORT = 5671;

    private final UnaryOperator<String> given;
    private final List<String> mistakes = new ArrayList<>();

    private SettingsReader(UnaryOperator<String> given) {
        this.given = given;
    }

    /** @param given the value of a setting by its name in camel case, or null */
    public static PublisherSettings read(UnaryOperator<String> given) {
        return new SettingsReader(given).read();
    }

    private PublisherSettings read() {
        PublisherSettings.Endpoint endpoint = endpoint();
        PublisherSettings.Secret secret = secret(endpoint);
        PublisherSettings.OutboxLimits outbox = new PublisherSettings.OutboxLimits(folder(), (int) number("outboxMaxEvents", 100_000, 1, Integer.MAX_VALUE),
                number("outboxMaxBytes", 268_435_456, 1 << 20, Long.MAX_VALUE), time("outboxMaxAge", "30d", Duration.ofDays(3650)),
                time("signOutLimit", "2s", LONGEST_LIMIT));
        PublisherSettings.Tls tls = tls(endpoint);
        PublisherSettings settings = new PublisherSettings(endpoint, secret, outbox, tls, text("exchange", "notifier.events"), text("bulkExchange", "notifier.bulk"),
                time("publishLimit", "10s", LONGEST_LIMIT), time("drainLimit", "5s", LONGEST_LIMIT), flag("includeClientMetadata", true), realms());
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
        return new PublisherSettings.Broker(List.copyOf(hosts), decoded(user[0]), user.length > 1 ? decoded(user[1]) : null,
                path.isEmpty() ? "/" : decoded(path), tls);
    }

    private static PublisherSettings.Host host(String text, int port) {
        URI read = URI.create("amqp://" + text);
        if (read.getHost() == null || !text.equals(read.getRawAuthority())) {
            throw new IllegalArgumentException("does not name a valid host");
        }
        String name = read.getHost();
        return new PublisherSettings.Host(name.startsWith("[") ? name.substring(1, name.length() - 1) : name, read.getPort() < 0 ? port : read.getPort());
    }

    private static PublisherSettings.Api api(String url) {
        URI read = URI.create(url);
        if (read.getHost() == null || read.getRawUserInfo() != null || read.getRawQuery() != null || read.getRawFragment() != null) {
            throw new IllegalArgumentException("must be a scheme, a host and perhaps a path; the API's token is the setting secret-file");
        }
        String base = url.replaceFirst("/+$", "");
        Matcher api = API_PATH.matcher(base);
        if (api.find()) {
            throw new IllegalArgumentException("includes the API's path: write " + base.substring(0, api.start()) + ", without " + api.group());
        }
        return new PublisherSettings.Api(URI.create(base + "/v1/events"));
    }

    private static String decoded(String text) {
        return URLDecoder.decode(text.replace("+", "%2B"), StandardCharsets.UTF_8);
    }

    private PublisherSettings.Secret secret(PublisherSettings.Endpoint endpoint) {
        String value = text("secret", null);
        Path file = file("secretFile");
        String inUrl = endpoint instanceof PublisherSettings.Broker broker ? broker.password() : null;
        long ways = java.util.stream.Stream.of(value, file, inUrl).filter(java.util.Objects::nonNull).count();
        if (ways > 1) {
            mistake("secret", "is given more than once: by secret, secret-file or in url; keep secret-file");
        } else if (ways == 0 && endpoint instanceof PublisherSettings.Broker) {
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

    private Set<String> realms() {
        String text = text("realms", "");
        return text.isEmpty() ? Set.of() : new LinkedHashSet<>(Arrays.stream(text.split(",")).map(String::trim).filter(each -> !each.isEmpty()).toList());
    }

    /** A number with its unit; without one it means seconds. */
    private Duration time(String name, String otherwise, Duration most) {
        String text = text(name, otherwise);
        Matcher read = TIME.matcher(text);
        if (read.matches()) {
            double millis = Double.parseDouble(read.group(1)) * UNITS.get(read.group(2) == null ? "s" : read.group(2));
            if (millis >= LEAST_MILLIS && millis <= most.toMillis()) {
                return Duration.ofMillis(Math.round(millis));
            }
        }
        mistake(name, "is " + text + ": give a time such as " + otherwise + ", at least " + LEAST_MILLIS + "ms and at most " + most.toHours() + "h");
        return most;
    }

    private long number(String name, long otherwise, long least, long most) {
        String text = text(name, String.valueOf(otherwise));
        try {
            long number = Long.parseLong(text);
            if (number >= least && number <= most) {
                return number;
            }
        } catch (NumberFormatException wrong) {
            // reported below
        }
        mistake(name, "is " + text + ": give a whole number, at least " + least);
        return otherwise;
    }

    private boolean flag(String name, boolean otherwise) {
        String text = text(name, String.valueOf(otherwise));
        if (!text.equals("true") && !text.equals("false")) {
            mistake(name, "is " + text + ": give true or false");
        }
        return text.equals("true");
    }

    private String text(String name, String otherwise) {
        String text = given.apply(name);
        return text == null || text.isBlank() ? otherwise : text.trim();
    }

    private void mistake(String name, String text) {
        mistakes.add(spelled(name) + " " + text);
    }

    /** As users type it: `outboxFolder` is `spi-notifier--publisher--outbox-folder`. */
    public static String spelled(String name) {
        return PREFIX + name.replaceAll("([A-Z])", "-$1").toLowerCase(Locale.ROOT);
    }
}
