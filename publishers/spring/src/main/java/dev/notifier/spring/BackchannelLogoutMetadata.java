package dev.notifier.spring;

import java.net.URISyntaxException;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.regex.Pattern;
import org.springframework.core.convert.converter.Converter;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.oauth2.core.OAuth2Error;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.oidc.OidcClientRegistration;
import org.springframework.security.oauth2.server.authorization.oidc.OidcProviderConfiguration;
import org.springframework.security.oauth2.server.authorization.oidc.authentication.OidcClientConfigurationAuthenticationProvider;
import org.springframework.security.oauth2.server.authorization.oidc.authentication.OidcClientRegistrationAuthenticationProvider;
import org.springframework.security.oauth2.server.authorization.oidc.web.OidcProviderConfigurationEndpointFilter;
import org.springframework.security.oauth2.server.authorization.settings.ClientSettings;

/**
 * Adds back-channel logout to OpenID Connect Dynamic Client Registration and to the discovery document.
 *
 * The application's own converters and its customizer are called, too. Spring has setters for them, but no getters: their fields are read.
 */
final class BackchannelLogoutMetadata {
    static final String URI = "backchannel_logout_uri";
    static final String SESSION_REQUIRED = "backchannel_logout_session_required";
    private static final Map<String, String> SETTINGS = Map.of(URI, BackchannelLogoutSettings.URI, SESSION_REQUIRED, BackchannelLogoutSettings.SESSION_REQUIRED);
    private static final String ERROR_URI = "https://openid.net/specs/openid-connect-registration-1_0.html#RegistrationError";

    private static final int MAX_URI_LENGTH = 4_096;
    /** What `java.net.URI` takes and notifier refuses: long names, `127.0.0.01`, `2130706433`, IPv6 addresses with a zone or certain IPv4 addresses. */
    private static final Pattern REFUSED_HOST = Pattern.compile(".{254,}|(?:.*\\.)?(?:[^.]{64,}.*|0[0-9]+(?:\\.[0-9]+)*)|[0-9][^.]*\\.?|\\[.*[.%].*");
    private static final Pattern TWO_ADDRESSES = Pattern.compile("[^?]*[,;|]https?://.*", Pattern.CASE_INSENSITIVE);

    private BackchannelLogoutMetadata() {
    }

    /** Adds the members to the requests and answers of the registration, to what a registered client reads of itself, and to the discovery document. */
    static void extend(Object endpoint) {
        if (endpoint instanceof OidcClientRegistrationAuthenticationProvider registration) {
            BackchannelLogoutMetadata.<Converter<OidcClientRegistration, RegisteredClient>>read(registration, "registeredClientConverter")
                    .ifPresent(own -> registration.setRegisteredClientConverter(request -> addSettings(own.convert(request), request)));
            BackchannelLogoutMetadata.<Converter<RegisteredClient, OidcClientRegistration>>read(registration, "clientRegistrationConverter")
                    .ifPresent(own -> registration.setClientRegistrationConverter(client -> addMembers(own.convert(client), client)));
        } else if (endpoint instanceof OidcClientConfigurationAuthenticationProvider configuration) {
            BackchannelLogoutMetadata.<Converter<RegisteredClient, OidcClientRegistration>>read(configuration, "clientRegistrationConverter")
                    .ifPresent(own -> configuration.setClientRegistrationConverter(client -> addMembers(own.convert(client), client)));
        } else if (endpoint instanceof OidcProviderConfigurationEndpointFilter discovery) {
            Consumer<OidcProviderConfiguration.Builder> members = metadata -> metadata.claim("backchannel_logout_supported", true)
                    .claim("backchannel_logout_session_supported", true);
            BackchannelLogoutMetadata.<Consumer<OidcProviderConfiguration.Builder>>read(discovery, "providerConfigurationCustomizer")
                    .ifPresent(own -> discovery.setProviderConfigurationCustomizer(members.andThen(own))); // the application's may change them
        }
    }

    private static <T> Optional<T> read(Object target, String field) {
        return PrivateField.read(target, field, "it does not have the members of back-channel logout");
    }

    private static RegisteredClient addSettings(RegisteredClient client, OidcClientRegistration registration) {
        Object uri = registration.getClaims().get(URI);
        Object isSessionRequired = registration.getClaims().get(SESSION_REQUIRED);
        if (uri != null && !(uri instanceof String text && isUsable(text))) {
            throw refuse(URI + " must be an https URI without user name and fragment");
        }
        if (isSessionRequired != null && !(isSessionRequired instanceof Boolean)) {
            throw refuse(SESSION_REQUIRED + " must be true or false");
        }
        ClientSettings.Builder settings = ClientSettings.withSettings(client.getClientSettings().getSettings());
        SETTINGS.forEach((member, setting) -> {
            if (registration.getClaims().get(member) != null) {
                settings.setting(setting, registration.getClaims().get(member));
            }
        });
        return RegisteredClient.from(client).clientSettings(settings.build()).build();
    }

    /** Without the value, which whoever registers has chosen: it may be in logs. */
    private static OAuth2AuthenticationException refuse(String description) {
        return new OAuth2AuthenticationException(new OAuth2Error("invalid_client_metadata", "Invalid Client Registration: " + description, ERROR_URI));
    }

    /** Returns whether notifier takes this as the address of a client: one https URI of ASCII, without user name and fragment. */
    static boolean isUsable(String text) {
        try {
            java.net.URI uri = new java.net.URI(text).parseServerAuthority();
            String host = uri.getHost();
            return host != null && "https".equalsIgnoreCase(uri.getScheme()) && !REFUSED_HOST.matcher(host).matches()
                    && uri.getPort() != 0 && uri.getPort() < 65_536 && uri.getRawAuthority().equals(uri.getPort() < 0 ? host : host + ':' + uri.getPort())
                    && uri.getRawFragment() == null && uri.toASCIIString().equals(text) && text.length() <= MAX_URI_LENGTH && !TWO_ADDRESSES.matcher(text).matches();
        } catch (URISyntaxException | NumberFormatException malformed) {
            return false;
        }
    }

    private static OidcClientRegistration addMembers(OidcClientRegistration registration, RegisteredClient client) {
        Map<String, Object> members = new LinkedHashMap<>(registration.getClaims());
        SETTINGS.forEach((member, setting) -> {
            if (client.getClientSettings().getSetting(setting) != null) {
                members.put(member, client.getClientSettings().getSetting(setting));
            }
        });
        return OidcClientRegistration.withClaims(members).build(); // the builder's other methods differ between versions
    }
}
