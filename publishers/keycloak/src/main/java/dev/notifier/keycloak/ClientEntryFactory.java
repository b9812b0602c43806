package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.Set;
import java.util.function.UnaryOperator;
import java.util.regex.Pattern;
import org.keycloak.common.util.StringPropertyReplacer;

/** Creates a client's entry of an event from its attributes in Keycloak. notifier's registry reads the same attributes. */
final class ClientEntryFactory {
    private static final Set<String> ALGORITHMS = Set.of("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519");

    private static final String LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";

    /** The addresses that notifier accepts. With another one it would refuse the client's whole entry, and its back-channel logout. */
    private static final Pattern FRONTCHANNEL_URI = Pattern.compile("https?://(?=[^/?:]{1,253}(?:[/?:]|$))(?:" + LABEL + "\\.)*(?=[A-Za-z])" + LABEL
            + "(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?(?:[/?][!-\\[\\]-~&&[^#]]*)?");
    private static final int MAX_URI_LENGTH = 4096;

    private ClientEntryFactory() {
    }

    /**
     * The attributes of a client.
     *
     * @param frontchannelUri the client's base URL, which Keycloak calls if no front-channel logout URL is set; null without
     *     front-channel logout
     * @param attribute returns the value of an attribute by its name, or null
     */
    record ClientAttributes(String clientId, boolean enabled, String rootUrl, String frontchannelUri, UnaryOperator<String> attribute) {
        private String text(String name) {
            String value = attribute.apply(name);
            return value == null ? "" : value.strip();
        }
    }

    /**
     * The values that a client's attributes may refer to.
     *
     * @param baseUrl Keycloak's address, without a slash at the end
     * @param adminUrl the address of Keycloak's admin console, without a slash at the end
     * @param algorithm the signature algorithm of clients that do not name one
     */
    record RealmContext(String baseUrl, String adminUrl, String algorithm) {
    }

    /** Returns an entry with the client's id alone. notifier's registry has the rest. */
    static ObjectNode createWithId(String clientId) {
        return JsonNodeFactory.instance.objectNode().put("client_id", clientId);
    }

    /**
     * Returns an entry with the client's address, or with null if it has none. If the client cannot be notified, the entry has the
     * id alone, so that notifier reports it.
     */
    static ObjectNode create(ClientAttributes client, RealmContext realm) {
        ObjectNode entry = createWithId(client.clientId());
        addFrontchannelUri(entry, client, realm);
        String override = client.text("notifier.backchannel_logout_uri");
        String uri = resolve(override.isEmpty() ? client.text("backchannel.logout.url") : override, client.rootUrl(), realm);
        if (uri.isEmpty() || !client.enabled()) {
            return entry.putNull("backchannel_logout_uri"); // Keycloak does not notify disabled clients either
        }
        String configured = client.text("id.token.signed.response.alg");
        String algorithm = configured.isEmpty() || configured.equals("any") ? realm.algorithm() : configured;
        if (uri.contains("${") || !client.text("id.token.encrypted.response.alg").isEmpty() || !ALGORITHMS.contains(algorithm)) {
            return entry;
        }
        String requiredOverride = client.text("notifier.backchannel_logout_session_required");
        String required = requiredOverride.isEmpty() ? client.text("backchannel.logout.session.required") : requiredOverride;
        return entry.put("backchannel_logout_uri", uri).put("backchannel_logout_session_required", required.equalsIgnoreCase("true"))
                .put("id_token_signed_response_alg", algorithm);
    }

    private static void addFrontchannelUri(ObjectNode entry, ClientAttributes client, RealmContext realm) {
        if (client.frontchannelUri() == null || !client.enabled()) {
            return;
        }
        String configured = client.text("frontchannel.logout.url");
        String uri = resolve(configured.isEmpty() ? client.frontchannelUri().strip() : configured, client.rootUrl(), realm);
        if (uri.length() <= MAX_URI_LENGTH && FRONTCHANNEL_URI.matcher(uri).matches()) {
            entry.put("frontchannel_logout_uri", uri)
                    .put("frontchannel_logout_session_required", client.text("frontchannel.logout.session.required").equalsIgnoreCase("true"));
        }
    }

    /** Resolves a URL as Keycloak's `ResolveRelative` does: a path is appended to the root URL, even if that has a path. */
    static String resolve(String url, String rootUrl, RealmContext realm) {
        String resolved = url;
        if (url.startsWith("/")) {
            int host = realm.baseUrl().indexOf("://") + 3;
            int path = realm.baseUrl().indexOf('/', host);
            String origin = path < 0 ? realm.baseUrl() : realm.baseUrl().substring(0, path);
            resolved = (rootUrl == null || rootUrl.isBlank() ? origin : rootUrl.strip()) + url;
        }
        resolved = resolved.replace("${authBaseUrl}", realm.baseUrl()).replace("${authAdminUrl}", realm.adminUrl());
        return resolved.contains("${") ? StringPropertyReplacer.replaceProperties(resolved) : resolved;
    }
}
