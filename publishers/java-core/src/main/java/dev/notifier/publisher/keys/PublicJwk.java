package dev.notifier.publisher.keys;

import java.security.PublicKey;

/**
 * A public key with the members of its JWK.
 *
 * @param keyType `RSA`, `EC` or `OKP`
 * @param curve null for RSA
 */
public record PublicJwk(String kid, String keyType, String algorithm, String curve, PublicKey key) {
}
