package dev.notifier.keycloak.keys;

import dev.notifier.keycloak.keys.PublicKeyReader.InvalidKeysException;
import dev.notifier.publisher.monitoring.LogThrottle;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.jboss.logging.Logger;
import org.keycloak.component.ComponentModel;
import org.keycloak.component.ComponentValidationException;
import org.keycloak.crypto.KeyWrapper;
import org.keycloak.keys.KeyProvider;
import org.keycloak.keys.KeyProviderFactory;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.RealmModel;
import org.keycloak.provider.ProviderConfigProperty;
import org.keycloak.provider.ProviderConfigurationBuilder;

/** The public half of notifier's keys in the realm's JWK Set. No private key is copied to Keycloak. */
public class PublicKeyProviderFactory implements KeyProviderFactory<KeyProvider> {
    private static final Logger LOG = Logger.getLogger(PublicKeyProviderFactory.class);
    private static final long LARGEST_FILE = 65_536;
    private static final Duration LOOK_AGAIN = Duration.ofSeconds(10);
    private static final List<ProviderConfigProperty> PROPERTIES = ProviderConfigurationBuilder.create()
            .property().name("keys").label("Public keys").type(ProviderConfigProperty.TEXT_TYPE)
            .helpText("The public keys that notifier signs with: the JWK Set that `notifier keys jwks` prints, a JWK, or a public key or certificate in PEM. "
                    + "Private keys are refused. Leave it empty if you name a file.").add()
            .property().name("file").label("File").type(ProviderConfigProperty.STRING_TYPE)
            .helpText("A file on each of Keycloak's machines with the same content, instead of the text above. It is read again within 10 seconds after a change.").add()
            .property().name("kid").label("Key ID of a PEM key").type(ProviderConfigProperty.STRING_TYPE)
            .helpText("The kid that notifier signs with. A JWK contains it.").add()
            .property().name("algorithm").label("Algorithm of a PEM key").type(ProviderConfigProperty.LIST_TYPE)
            .options("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
            .helpText("The algorithm that notifier signs with. A JWK contains it. If empty: RS256 for an RSA key, else the algorithm of the key's curve.").add()
            .build();

    private final Map<String, Read> files = new ConcurrentHashMap<>();
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));

    @Override
    public KeyProvider create(KeycloakSession session, ComponentModel model) {
        return () -> {
            try {
                return keys(model).stream().map(each -> ofComponent(each, model));
            } catch (InvalidKeysException wrong) {
                if (throttle.tryAcquire(model.getId())) {
                    LOG.errorf("notifier: the keys of component %s cannot be used, and are not in the realm's JWK Set: %s", model.getId(), wrong.getMessage());
                }
                return java.util.stream.Stream.empty();
            }
        };
    }

    private static KeyWrapper ofComponent(KeyWrapper key, ComponentModel model) {
        KeyWrapper own = key.cloneKey();
        own.setProviderId(model.getId());
        own.setProviderPriority(model.get("priority", 0L));
        return own;
    }

    @Override
    public void validateConfiguration(KeycloakSession session, RealmModel realm, ComponentModel model) throws ComponentValidationException {
        try {
            keys(model);
        } catch (InvalidKeysException wrong) {
            throw new ComponentValidationException(wrong.getMessage());
        }
    }

    private List<KeyWrapper> keys(ComponentModel model) throws InvalidKeysException {
        String text = model.get("keys");
        String file = model.get("file");
        if ((text == null || text.isBlank()) == (file == null || file.isBlank())) {
            throw new InvalidKeysException("Give either the public keys, or the file that holds them.");
        }
        boolean fromFile = text == null || text.isBlank();
        String content = fromFile ? content(Path.of(file.strip())) : text;
        return PublicKeyReader.read(content, model.get("kid"), model.get("algorithm"));
    }

    /** As it was last read, if it cannot be read now. */
    private String content(Path file) throws InvalidKeysException {
        Read last = files.get(file.toString());
        long now = System.nanoTime();
        if (last != null && now - last.at < LOOK_AGAIN.toNanos()) {
            return last.content;
        }
        try {
            if (!Files.isRegularFile(file) || Files.size(file) > LARGEST_FILE) {
                throw new IOException("no file of keys");
            }
            String content = Files.readString(file, StandardCharsets.UTF_8);
            files.put(file.toString(), new Read(content, now));
            return content;
        } catch (IOException | RuntimeException failed) {
            if (last == null) {
                throw new InvalidKeysException("The file cannot be read on this machine.");
            }
            if (throttle.tryAcquire(file.toString())) {
                LOG.errorf("notifier: the file of public keys cannot be read any more, its last content stays in force: %s", file);
            }
            return last.content;
        }
    }

    @Override
    public String getId() {
        return "notifier-public-keys";
    }

    @Override
    public String getHelpText() {
        return "The public keys of notifier, which signs logout tokens in the realm's name. Clients find them in the realm's JWK Set; Keycloak itself never signs with them.";
    }

    @Override
    public List<ProviderConfigProperty> getConfigProperties() {
        return PROPERTIES;
    }

    private record Read(String content, long at) {
    }
}
