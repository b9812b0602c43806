package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.Set;
import java.util.function.UnaryOperator;
import java.util.regex.Pattern;
import org.keycloak.common.util.StringPropertyReplacer;

/** Builds a client's entry of the event from its attributes, as notifier's registry reads them from Keycloak. */
final class ClientEntryFactory {
    private static final Set<String> ALGORITHMS = Set.of("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519");

    private static final String LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
    /** What notifier surely takes: a wrong member would cost the client its whole entry, and so its back-channel logout. */
    private static final Pattern PAGE = Pattern.compile("https?://(?=[^/?:]{1,253}(?:[/?:]|$))(?:" + LABEL + "\\.)*(?=[A-Za-z])" + LABEL
            + "(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?(?:[/?][!-\\[\\]-~&&[^#]]*)?");
    private static final int LONGEST = 4096; // characters

    private ClientEntryFactory() {
    }

    /**
     * The client as Keycloak has it.
     *
     * @param page where Keycloak itself has a browser ask it, if nothing else is set; null if no browser is to
     * @param attribute the value of an attribute by its name, or null
     */
    record Client(String clientId, boolean enabled, String rootUrl, String page, UnaryOperator<String> attribute) {
        private String text(String name) {
            String value = attribute.apply(name);
            return value == null ? "" : value.strip();
        }
    }

    /**
     * The addresses that a client's own may begin with, without a slash at the end.
     *
     * @param realmAlgorithm of clients that name none
     */
    record Surroundings(String base, String admin, String realmAlgorithm) {
    }

    /** The client by its id only; notifier's registry supplies the rest. */
    static ObjectNode named(String clientId) {
        return JsonNodeFactory.instance.objectNode().put("client_id", clientId);
    }

    /** The client with its address, or with null if it has none. By its id only if it cannot be notified: notifier then reports it. */
    static ObjectNode of(Client client, Surroundings around) {
        ObjectNode entry = named(client.clientId());
        addPage(entry, client, around);
        String own = client.text("notifier.backchannel_logout_uri");
        String uri = resolved(own.isEmpty() ? client.text("backchannel.logout.url") : own, client.rootUrl(), around);
        if (uri.isEmpty() || !client.enabled()) {
            return entry.putNull("backchannel_logout_uri"); // Keycloak does not notify disabled clients either
        }
        String given = client.text("id.token.signed.response.alg");
        String algorithm = given.isEmpty() || given.equals("any") ? around.realmAlgorithm() : given;
        if (uri.contains("${") || !client.text("id.token.encrypted.response.alg").isEmpty() || !ALGORITHMS.contains(algorithm)) {
            return entry;
        }
        String ownNeed = client.text("notifier.backchannel_logout_session_required");
        String need = ownNeed.isEmpty() ? client.text("backchannel.logout.session.required") : ownNeed;
        return entry.put("backchannel_logout_uri", uri).put("backchannel_logout_session_required", need.equalsIgnoreCase("true"))
                .put("id_token_signed_response_alg", algorithm);
    }

    /** Where the page of a sign-out asks the client. */
    private static void addPage(ObjectNode entry, Client client, Surroundings around) {
        if (client.page() == null || !client.enabled()) {
            return;
        }
        String own = client.text("frontchannel.logout.url");
        String uri = resolved(own.isEmpty() ? client.page().strip() : own, client.rootUrl(), around);
        if (uri.length() <= LONGEST && PAGE.matcher(uri).matches()) {
            entry.put("frontchannel_logout_uri", uri)
                    .put("frontchannel_logout_session_required", client.text("frontchannel.logout.session.required").equalsIgnoreCase("true"));
        }
    }

    /** As Keycloak does (`ResolveRelative`): a path is appended to the root URL, whatever path that has itself. */
    static String resolved(String url, String rootUrl, Surroundings around) {
        String whole = url;
        if (url.startsWith("/")) {
            int host = around.base().indexOf("://") + 3;
            int path = around.base().indexOf('/', host);
            String origin = path < 0 ? around.base() : around.base().substring(0, path);
            whole = (rootUrl == null || rootUrl.isBlank() ? origin : rootUrl.strip()) + url;
        }
        whole = whole.replace("${authBaseUrl}", around.base()).replace("${authAdminUrl}", around.admin());
        return whole.contains("${") ? StringPropertyReplacer.replaceProperties(whole) : whole;
    }
}
