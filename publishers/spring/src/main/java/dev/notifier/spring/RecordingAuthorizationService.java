package dev.notifier.spring;

import java.util.function.Supplier;
import org.springframework.security.oauth2.core.oidc.OidcScopes;
import org.springframework.security.oauth2.server.authorization.OAuth2Authorization;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationCode;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.OAuth2TokenType;

/** Records the session and the client of each code that the decorated service saves. */
final class RecordingAuthorizationService implements OAuth2AuthorizationService {
    private final OAuth2AuthorizationService target;
    private final Supplier<SessionRecorder> recorder;

    RecordingAuthorizationService(OAuth2AuthorizationService target, Supplier<SessionRecorder> recorder) {
        this.target = target;
        this.recorder = recorder;
    }

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
        return target.findByToken(token, tokenType);
    }
}
