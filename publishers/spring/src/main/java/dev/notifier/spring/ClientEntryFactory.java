package dev.notifier.spring;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.notifier.publisher.monitoring.LogThrottle;
import java.time.Duration;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.context.AuthorizationServerContext;
import org.springframework.security.oauth2.server.authorization.context.AuthorizationServerContextHolder;
import org.springframework.security.oauth2.server.authorization.settings.AuthorizationServerSettings;

/** Creates a client's entry of an event from the settings of the registered client. */
final class ClientEntryFactory {
    private static final Logger LOG = LoggerFactory.getLogger(ClientEntryFactory.class);

    private final RegisteredClientRepository clients;
    private final AuthorizationServerSettings server;
    private final boolean includeMetadata;
    private final LogThrottle throttle = new LogThrottle(Duration.ofMinutes(1));

    ClientEntryFactory(RegisteredClientRepository clients, AuthorizationServerSettings server, boolean includeMetadata) {
        this.clients = clients;
        this.server = server;
        this.includeMetadata = includeMetadata;
    }

    private record Context(String getIssuer, AuthorizationServerSettings getAuthorizationServerSettings) implements AuthorizationServerContext {
    }

    /** Returns an entry with the client's id alone if the client is unknown or cannot be read: notifier's registry may have the rest. */
    ObjectNode create(SessionClient row) {
        ObjectNode entry = JsonNodeFactory.instance.objectNode().put("client_id", row.clientId()).put("sub", row.sub());
        RegisteredClient client = includeMetadata ? find(row) : null;
        if (client == null) {
            return entry;
        }
        Object uri = client.getClientSettings().getSetting(BackchannelLogoutSettings.URI);
        if (uri == null) {
            return entry.putNull("backchannel_logout_uri");
        }
        Object isSessionRequired = client.getClientSettings().getSetting(BackchannelLogoutSettings.SESSION_REQUIRED);
        entry.put("backchannel_logout_uri", uri.toString()).put("backchannel_logout_session_required", "true".equals(String.valueOf(isSessionRequired)));
        if (client.getTokenSettings().getIdTokenSignatureAlgorithm() != null) {
            entry.put("id_token_signed_response_alg", client.getTokenSettings().getIdTokenSignatureAlgorithm().getName());
        }
        return entry;
    }

    /** An application with several issuers selects its repository by the issuer of the request. */
    private RegisteredClient find(SessionClient row) {
        AuthorizationServerContext previous = AuthorizationServerContextHolder.getContext();
        try {
            AuthorizationServerContextHolder.setContext(new Context(row.iss(), server));
            return clients.findByClientId(row.clientId());
        } catch (RuntimeException failure) {
            if (throttle.tryAcquire(row.clientId())) {
                LOG.error("notifier: client {} cannot be read, so its address must be in notifier's registry: {}", row.clientId(), BoundedCalls.name(failure));
            }
            return null;
        } finally {
            AuthorizationServerContextHolder.setContext(previous);
        }
    }
}
