package dev.notifier.spring;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.JWSHeader;
import com.nimbusds.jose.jwk.Curve;
import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.jwk.JWKMatcher;
import com.nimbusds.jose.jwk.JWKSelector;
import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.jwk.KeyUse;
import com.nimbusds.jose.jwk.RSAKey;
import com.nimbusds.jose.jwk.gen.ECKeyGenerator;
import com.nimbusds.jose.jwk.gen.RSAKeyGenerator;
import com.nimbusds.jose.jwk.source.ImmutableJWKSet;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.proc.SecurityContext;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.springframework.security.oauth2.jwt.JwsHeader;
import org.springframework.security.oauth2.jwt.JwtClaimsSet;
import org.springframework.security.oauth2.jwt.JwtEncoderParameters;
import org.springframework.security.oauth2.jwt.NimbusJwtEncoder;
import org.springframework.security.oauth2.jose.jws.SignatureAlgorithm;

class PublicKeysTest {
    @TempDir
    Path folder;

    private Path file;
    private RSAKey own;
    private JWKSource<SecurityContext> source;

    @BeforeEach
    void writeKeys() throws Exception {
        file = folder.resolve("keys.json");
        own = new RSAKeyGenerator(2048).keyID("own").keyUse(KeyUse.SIGNATURE).algorithm(JWSAlgorithm.RS256).generate();
        RSAKey first = new RSAKeyGenerator(2048).keyID("notifier-1").keyUse(KeyUse.SIGNATURE).algorithm(JWSAlgorithm.RS256).generate();
        JWK second = new ECKeyGenerator(Curve.P_256).keyID("notifier-2").keyUse(KeyUse.SIGNATURE).algorithm(JWSAlgorithm.ES256).generate();
        Files.writeString(file, new JWKSet(List.of(first, second)).toPublicJWKSet().toString());
        source = new PublicKeys(file).addTo(new ImmutableJWKSet<>(new JWKSet(own)));
    }

    private List<String> select(JWKMatcher matcher) throws Exception {
        return source.get(new JWKSelector(matcher), null).stream().map(JWK::getKeyID).toList();
    }

    @Test
    void theJwkSetEndpointHasAllKeys() throws Exception {
        assertThat(select(new JWKMatcher.Builder().build())).containsExactly("own", "notifier-1", "notifier-2");
    }

    @Test
    void theOtherCriteriaOfASelectionHoldForAllKeys() throws Exception {
        assertThat(select(new JWKMatcher.Builder().privateOnly(true).build())).containsExactly("own");
    }

    @Test
    void theServerSignsWithItsOwnKey() {
        JwsHeader header = JwsHeader.with(SignatureAlgorithm.RS256).build();
        JwtClaimsSet claims = JwtClaimsSet.builder().subject("alice").build();
        assertThat(new NimbusJwtEncoder(source).encode(JwtEncoderParameters.from(header, claims)).getHeaders()).containsEntry("kid", "own");
    }

    @Test
    void notifiersKeysVerifyNoTokenOfTheServer() throws Exception {
        assertThat(select(JWKMatcher.forJWSHeader(new JWSHeader.Builder(JWSAlgorithm.RS256).keyID("notifier-1").build()))).isEmpty();
        assertThat(select(JWKMatcher.forJWSHeader(new JWSHeader(JWSAlgorithm.ES256)))).isEmpty();
    }

    @Test
    void aPrivateKeyIsRefused() throws Exception {
        Files.writeString(file, new JWKSet(own).toString(false));
        assertThatThrownBy(() -> new PublicKeys(file)).isInstanceOfSatisfying(NotifierConfigurationException.class, failure -> {
            assertThat(failure).hasMessageContaining("private");
            assertThat(failure.remedy()).contains("notifier keys jwks");
        });
    }

    @Test
    void aSingleKeyIsAccepted() throws Exception {
        Files.writeString(file, own.toPublicJWK().toJSONString());
        source = new PublicKeys(file).addTo(new ImmutableJWKSet<>(new JWKSet()));
        assertThat(select(new JWKMatcher.Builder().build())).containsExactly("own");
    }
}
