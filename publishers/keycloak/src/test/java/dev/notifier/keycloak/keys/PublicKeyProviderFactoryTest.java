package dev.notifier.keycloak.keys;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.List;
import org.junit.jupiter.api.Test;
import org.keycloak.component.ComponentModel;
import org.keycloak.component.ComponentValidationException;
import org.keycloak.crypto.KeyStatus;
import org.keycloak.crypto.KeyWrapper;

class PublicKeyProviderFactoryTest {
    private static final String EC = "{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"e1\",\"alg\":\"ES256\",\"use\":\"sig\","
            + "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}";

    private static ComponentModel component(String name, String value) {
        ComponentModel model = new ComponentModel();
        model.setId("component");
        model.getConfig().putSingle(name, value);
        return model;
    }

    @Test
    void theKeysAreListedButNeverSign() {
        List<KeyWrapper> keys = new PublicKeyProviderFactory().create(null, component("keys", EC)).getKeysStream().toList();
        KeyWrapper key = keys.get(0);
        assertEquals(List.of("e1", "ES256", "EC", "P-256", "component"), List.of(key.getKid(), key.getAlgorithm(), key.getType(), key.getCurve(),
                key.getProviderId()));
        assertEquals(KeyStatus.PASSIVE, key.getStatus());
        assertNotNull(key.getPublicKey());
        assertNull(key.getPrivateKey());
    }

    @Test
    void invalidKeysAreRefusedWhenTheComponentIsSaved() {
        PublicKeyProviderFactory factory = new PublicKeyProviderFactory();
        for (ComponentModel model : List.of(component("keys", "hello"), component("file", "/nowhere/keys.json"), component("kid", "k"))) {
            assertThrows(ComponentValidationException.class, () -> factory.validateConfiguration(null, null, model));
            assertEquals(0, factory.create(null, model).getKeysStream().count());
        }
    }
}
