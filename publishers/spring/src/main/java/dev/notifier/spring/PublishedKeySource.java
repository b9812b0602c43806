package dev.notifier.spring;

import com.nimbusds.jose.KeySourceException;
import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.jwk.JWKMatcher;
import com.nimbusds.jose.jwk.JWKSelector;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.proc.SecurityContext;
import java.util.ArrayList;
import java.util.List;

/**
 * Adds notifier's public keys to the JWK Set endpoint only, which is alone in selecting keys without any criterion.
 *
 * A token is signed and verified with a key of a certain type: there, a second key of the same type would be an error.
 */
final class PublishedKeySource implements JWKSource<SecurityContext> {
    private final JWKSource<SecurityContext> target;
    private final PublicKeys keys;

    PublishedKeySource(JWKSource<SecurityContext> target, PublicKeys keys) {
        this.target = target;
        this.keys = keys;
    }

    @Override
    public List<JWK> get(JWKSelector selector, SecurityContext context) throws KeySourceException {
        List<JWK> own = target.get(selector, context);
        JWKMatcher matcher = selector.getMatcher();
        if (matcher.getKeyTypes() != null || matcher.getKeyIDs() != null || matcher.getKeyUses() != null || matcher.getAlgorithms() != null) {
            return own;
        }
        List<JWK> all = new ArrayList<>(own);
        all.addAll(keys.read());
        return all;
    }
}
