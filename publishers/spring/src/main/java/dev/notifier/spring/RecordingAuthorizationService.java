package dev.notifier.spring;

import java.util.function.Supplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.security.oauth2.core.OAuth2RefreshToken;
import org.springframework.security.oauth2.core.oidc.OidcScopes;
import org.springframework.security.oauth2.server.authorization.OAuth2Authorization;
import org.springframework.security.oauth2.server.authorization.OAuth2Authorization.Token;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationCode;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.OAuth2TokenType;

/** Records the session and the client of each code that the decorated service saves. Revokes a refresh token whose session has ended when it is used. */
record RecordingAuthorizationService(OAuth2AuthorizationService target, Supplier<SessionRecorder> recorder) implements OAuth2AuthorizationService {
    private static final Logger LOG = LoggerFactory.getLogger(RecordingAuthorizationService.class);

    @Override
    public void save(OAuth2Authorization authorization) {
        target.save(isNewCode(authorization) ? recorder.get().recordCode(authorization) : authorization);
    }

    private static boolean isNewCode(OAuth2Authorization authorization) {
        return authorization.getToken(OAuth2AuthorizationCode.class) != null && authorization.getAccessToken() == null
                && authorization.getAttribute(SessionRecorder.SID) == null && authorization.getAuthorizedScopes().contains(OidcScopes.OPENID);
    }

    @Override
    public void remove(OAuth2Authorization authorization) {
        target.remove(authorization);
    }

    @Override
    public OAuth2Authorization findById(String id) {
        return target.findById(id);
    }

    @Override
    public OAuth2Authorization findByToken(String token, OAuth2TokenType tokenType) {
        OAuth2Authorization found = target.findByToken(token, tokenType);
        Token<OAuth2RefreshToken> refreshToken = found == null ? null : found.getRefreshToken();
        boolean isMeant = refreshToken != null && (OAuth2TokenType.REFRESH_TOKEN.equals(tokenType) || tokenType == null && refreshToken.getToken().getTokenValue().equals(token));
        if (!isMeant || !refreshToken.isActive() || !recorder.get().isRefreshTokenEnded(found)) {
            return found;
        }
        LOG.debug("notifier: a refresh token is revoked, since its session has ended");
        OAuth2Authorization revoked = OAuth2Authorization.from(found).invalidate(refreshToken.getToken()).build();
        target.save(revoked);
        return revoked;
    }
}
