package dev.notifier.spring;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.BeansException;
import org.springframework.beans.DirectFieldAccessor;
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
    private static final Logger LOG = LoggerFactory.getLogger(BackchannelLogoutMetadata.class);
    static final String URI = "backchannel_logout_uri";
    static final String SESSION_REQUIRED = "backchannel_logout_session_required";
    private static final Map<String, String> SETTINGS = Map.of(URI, BackchannelLogoutSettings.URI, SESSION_REQUIRED, BackchannelLogoutSettings.SESSION_REQUIRED);
    private static final String ERROR_URI = "https://openid.net/specs/openid-connect-registration-1_0.html#RegistrationError";

    private static final int MAX_URI_LENGTH = 4_096;
    private static final String OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    private static final String IPV4 = "(?:" + OCTET + "\\.){3}" + OCTET;
    private static final String LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";
    private static final String NO_NUMBER_AT_THE_END = "(?!(?:[^/?:]*\\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\\.?(?:[/?:]|$))";
    private static final String NAME = "(?=[^/?:]{1,254}(?:[/?:]|$))" + NO_NUMBER_AT_THE_END + LABEL + "(?:\\." + LABEL + ")*\\.?";
    private static final String PORT = "(?::(?=[0-9]{1,5}(?:[/?]|$))0*(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?";
    /** As notifier checks it, and https: visible ASCII, no user name, no fragment, one address. */
    private static final Pattern HTTPS = Pattern.compile("(?![^?]*[,;|][Hh][Tt][Tt][Pp][Ss]?://)[Hh][Tt][Tt][Pp][Ss]://(?:" + IPV4 + "|(?<ipv6>\\[[0-9A-Fa-f:.]{2,45}\\])|" + NAME + ")"
            + PORT + "(?:[/?][!-~&&[^#\\\\]]*)?");

    private BackchannelLogoutMetadata() {
    }

    /** Adds the members to the requests and answers of the registration. */
    static void extend(OidcClientRegistrationAuthenticationProvider provider) {
        BackchannelLogoutMetadata.<Converter<OidcClientRegistration, RegisteredClient>>read(provider, "registeredClientConverter")
                .ifPresent(own -> provider.setRegisteredClientConverter(registration -> addSettings(own.convert(registration), registration)));
        BackchannelLogoutMetadata.<Converter<RegisteredClient, OidcClientRegistration>>read(provider, "clientRegistrationConverter")
                .ifPresent(own -> provider.setClientRegistrationConverter(client -> addMembers(own.convert(client), client)));
    }

    /** Adds the members to what a registered client reads of itself. */
    static void extend(OidcClientConfigurationAuthenticationProvider provider) {
        BackchannelLogoutMetadata.<Converter<RegisteredClient, OidcClientRegistration>>read(provider, "clientRegistrationConverter")
                .ifPresent(own -> provider.setClientRegistrationConverter(client -> addMembers(own.convert(client), client)));
    }

    /** Adds the members to the discovery document. The application's customizer may change them. */
    static void extend(OidcProviderConfigurationEndpointFilter filter) {
        Consumer<OidcProviderConfiguration.Builder> members = metadata -> metadata.claim("backchannel_logout_supported", true)
                .claim("backchannel_logout_session_supported", true);
        BackchannelLogoutMetadata.<Consumer<OidcProviderConfiguration.Builder>>read(filter, "providerConfigurationCustomizer")
                .ifPresent(own -> filter.setProviderConfigurationCustomizer(members.andThen(own)));
    }

    @SuppressWarnings("unchecked")
    static <T> Optional<T> read(Object target, String field) {
        try {
            return Optional.ofNullable((T) new DirectFieldAccessor(target).getPropertyValue(field));
        } catch (BeansException unknownVersion) {
            LOG.warn("notifier: {} has no field {} in this version, so it does not have the members of back-channel logout", target.getClass().getName(), field);
            return Optional.empty();
        }
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

    static boolean isUsable(String uri) {
        if (uri.length() > MAX_URI_LENGTH) {
            return false;
        }
        Matcher match = HTTPS.matcher(uri);
        return match.matches() && (match.group("ipv6") == null || isIpv6(match.group("ipv6")));
    }

    private static boolean isIpv6(String host) {
        try {
            return java.net.URI.create("https://" + host).getHost() != null;
        } catch (IllegalArgumentException invalid) {
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
