package dev.notifier.spring;

import java.util.function.Supplier;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.oidc.endpoint.OidcParameterNames;
import org.springframework.security.oauth2.server.authorization.OAuth2Authorization;
import org.springframework.security.oauth2.server.authorization.token.JwtEncodingContext;
import org.springframework.security.oauth2.server.authorization.token.OAuth2TokenCustomizer;

/**
 * Sets the `sid` of each ID token to that of the session in which its code was issued, after the application's own customizer.
 *
 * The authorization server itself derives it from the session that the user has used last, at this node.
 */
record SidTokenCustomizer(OAuth2TokenCustomizer<JwtEncodingContext> target, Supplier<SessionRecorder> recorder) implements OAuth2TokenCustomizer<JwtEncodingContext> {
    @Override
    public void customize(JwtEncodingContext context) {
        target.customize(context);
        OAuth2Authorization authorization = context.getAuthorization();
        String sid = authorization == null ? null : authorization.getAttribute(SessionRecorder.SID);
        if (sid == null || !OidcParameterNames.ID_TOKEN.equals(context.getTokenType().getValue())) {
            return;
        }
        context.getClaims().claims(claims -> {
            claims.put("sid", sid);
            if (AuthorizationGrantType.AUTHORIZATION_CODE.equals(context.getAuthorizationGrantType())) {
                recorder.get().recordIdToken(authorization, context.getRegisteredClient().getClientId(), String.valueOf(claims.get("iss")),
                        String.valueOf(claims.get("sub")));
            }
        });
    }
}
