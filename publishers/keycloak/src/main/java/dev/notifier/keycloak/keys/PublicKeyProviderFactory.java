package dev.notifier.keycloak.keys;

import dev.notifier.publisher.keys.InvalidKeysException;
import dev.notifier.publisher.keys.PublicJwk;
import dev.notifier.publisher.keys.PublicKeyFiles;
import dev.notifier.publisher.keys.PublicKeyReader;
import dev.notifier.publisher.monitoring.LogThrottle;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.stream.Stream;
import org.jboss.logging.Logger;
import org.keycloak.component.ComponentModel;
import org.keycloak.component.ComponentValidationException;
import org.keycloak.crypto.KeyStatus;
import org.keycloak.crypto.KeyUse;
import org.keycloak.crypto.KeyWrapper;
import org.keycloak.keys.KeyProvider;
import org.keycloak.keys.KeyProviderFactory;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.RealmModel;
import org.keycloak.provider.ProviderConfigProperty;
import org.keycloak.provider.ProviderConfigurationBuilder;

/** Adds notifier's public keys to the realm's JWK Set. Keycloak does not have the private keys, and does not sign with them. */
public class PublicKeyProviderFactory implements KeyProviderFactory<KeyProvider> {
    private static final Logger LOG = Logger.getLogger("dev.notifier.keycloak.keys.PublicKeyFactory");
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

    private final PublicKeyFiles files = new PublicKeyFiles();
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));

    @Override
    public KeyProvider create(KeycloakSession session, ComponentModel model) {
        return () -> {
            try {
                return readKeys(model).stream().map(each -> toKeyWrapper(each, model));
            } catch (InvalidKeysException invalid) {
                if (throttle.tryAcquire(model.getId())) {
                    LOG.errorf("notifier: the keys of component %s cannot be used, and are not in the realm's JWK Set: %s", model.getId(), invalid.getMessage());
                }
                return Stream.empty();
            }
        };
    }

    private static KeyWrapper toKeyWrapper(PublicJwk jwk, ComponentModel model) {
        KeyWrapper wrapper = new KeyWrapper();
        wrapper.setProviderId(model.getId());
        wrapper.setProviderPriority(model.get("priority", 0L));
        wrapper.setKid(jwk.kid());
        wrapper.setUse(KeyUse.SIG);
        wrapper.setStatus(KeyStatus.PASSIVE); // published, but never used to sign
        wrapper.setType(jwk.keyType());
        wrapper.setAlgorithm(jwk.algorithm());
        wrapper.setCurve(jwk.curve());
        wrapper.setPublicKey(jwk.key());
        return wrapper;
    }

    @Override
    public void validateConfiguration(KeycloakSession session, RealmModel realm, ComponentModel model) throws ComponentValidationException {
        try {
            readKeys(model);
        } catch (InvalidKeysException invalid) {
            throw new ComponentValidationException(invalid.getMessage());
        }
    }

    private List<PublicJwk> readKeys(ComponentModel model) throws InvalidKeysException {
        String text = model.get("keys");
        String file = model.get("file");
        boolean hasText = text != null && !text.isBlank();
        boolean hasFile = file != null && !file.isBlank();
        if (hasText == hasFile) {
            throw new InvalidKeysException("Give either the public keys, or the file that holds them.");
        }
        return PublicKeyReader.read(hasText ? text : files.read(Path.of(file.strip())), model.get("kid"), model.get("algorithm"));
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
}
