package dev.notifier.spring;

import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.jwk.JWKMatcher;
import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.proc.SecurityContext;
import dev.notifier.publisher.keys.InvalidKeysException;
import dev.notifier.publisher.keys.PublicKeyFiles;
import dev.notifier.publisher.keys.PublicKeyReader;
import java.nio.file.Path;
import java.text.ParseException;
import java.util.List;
import java.util.stream.Stream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** notifier's public keys, read again from their file every 10 s. */
final class PublicKeys {
    private static final Logger LOG = LoggerFactory.getLogger(PublicKeys.class);

    private final Path file;
    private final PublicKeyFiles files = new PublicKeyFiles();
    private volatile String lastText;
    private volatile List<JWK> last;

    /** @throws NotifierConfigurationException if the file is unreadable or contains anything but public keys */
    PublicKeys(Path file) {
        this.file = file;
        try {
            this.last = parse(files.read(file));
        } catch (InvalidKeysException invalid) {
            throw new NotifierConfigurationException("notifier.public-keys names " + file + ", which cannot be used. " + invalid.getMessage(),
                    "Write the output of `notifier keys jwks` to this file, readable for this process. Keep notifier's private key from this machine.");
        }
    }

    /**
     * Adds the keys to the JWK Set endpoint only, which is alone in selecting keys without any criterion. A token is signed and verified with
     * a key of a certain type: there, a second key of the same type would be an error.
     */
    JWKSource<SecurityContext> addTo(JWKSource<SecurityContext> target) {
        return (selector, context) -> {
            List<JWK> own = target.get(selector, context);
            JWKMatcher matcher = selector.getMatcher();
            boolean hasCriterion = matcher.getKeyTypes() != null || matcher.getKeyIDs() != null || matcher.getKeyUses() != null || matcher.getAlgorithms() != null;
            return hasCriterion ? own : Stream.concat(own.stream(), selector.select(new JWKSet(read())).stream()).toList();
        };
    }

    /** Returns the keys. If the file has become invalid, its last valid content. */
    private List<JWK> read() {
        try {
            String text = files.read(file);
            if (!text.equals(lastText)) { // anybody may request the JWK Set at any rate
                lastText = text;
                last = parse(text);
            }
        } catch (InvalidKeysException invalid) {
            LOG.error("notifier: {} cannot be used, and its last content stays in force: {}", file, invalid.getMessage());
        }
        return last;
    }

    private static List<JWK> parse(String text) throws InvalidKeysException {
        PublicKeyReader.read(text, null, null); // refuses private keys
        try {
            return text.contains("\"keys\"") ? JWKSet.parse(text).getKeys() : List.of(JWK.parse(text));
        } catch (ParseException invalid) {
            throw new InvalidKeysException("It is not a JWK Set.");
        }
    }
}
