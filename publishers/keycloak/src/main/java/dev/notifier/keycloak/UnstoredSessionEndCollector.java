package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.SessionEnded;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.keycloak.models.AbstractKeycloakTransaction;
import org.keycloak.models.AuthenticatedClientSessionModel;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.UserSessionModel;
import org.keycloak.protocol.oidc.OIDCLoginProtocol;

/**
 * Publishes sign-outs if Keycloak does not store online sessions in the database. Collects the clients to which Keycloak would
 * post within a request, so that each session has one event per issuer.
 */
final class UnstoredSessionEndCollector extends AbstractKeycloakTransaction {
    private static final String ATTRIBUTE = UnstoredSessionEndCollector.class.getName();

    private final KeycloakSession session;
    private final KeycloakPublisher publisher;
    private final Map<SessionAtIssuer, SignedOutClients> clients = new LinkedHashMap<>();

    private UnstoredSessionEndCollector(KeycloakSession session, KeycloakPublisher publisher) {
        this.session = session;
        this.publisher = publisher;
    }

    /** Returns the collector of this request. */
    static UnstoredSessionEndCollector of(KeycloakSession session, KeycloakPublisher publisher) {
        UnstoredSessionEndCollector collector = session.getAttribute(ATTRIBUTE, UnstoredSessionEndCollector.class);
        if (collector == null) {
            collector = new UnstoredSessionEndCollector(session, publisher);
            session.getTransactionManager().enlistAfterCompletion(collector);
            session.setAttribute(ATTRIBUTE, collector);
        }
        return collector;
    }

    /** Keycloak signs a client out of a session. */
    void onClientSignOut(UserSessionModel userSession, AuthenticatedClientSessionModel clientSession) {
        String issuer = clientSession.getNote(OIDCLoginProtocol.ISSUER);
        String user = userSession.getUser().getId();
        String client = clientSession.getClient().getId();
        ObjectNode entry = issuer == null ? null
                : new ClientEntryCache(session, clientSession.getRealm(), publisher.settings().includeClientMetadata()).entry(client, issuer, user);
        if (entry != null && !ClientEntryCache.isOwnWithoutAddress(entry)) {
            SessionAtIssuer key = new SessionAtIssuer(new SessionRowKey(userSession.getId(), userSession.getStarted(), false, null), issuer, user);
            SignedOutClients signedOut = clients.computeIfAbsent(key, absent -> new SignedOutClients(new ArrayList<>(), new StringBuilder()));
            signedOut.entries.add(entry);
            signedOut.idSalt.append(client).append(clientSession.getStarted());
        }
    }

    @Override
    protected void commitImpl() {
        Instant now = Instant.now().truncatedTo(ChronoUnit.MILLIS);
        publisher.runGuarded("handing events over", () -> clients.forEach((key, signedOut) -> {
            String idSource = key.session.toIdSource(key.issuer, signedOut.idSalt.toString());
            publisher.publisher().publishSessionEnded(new SessionEnded(key.session.toSessionKey(), idSource, key.issuer, key.user, key.session.id(),
                    signedOut.entries, now, null), Lane.EVENTS);
        }));
        clients.clear();
    }

    @Override
    protected void rollbackImpl() {
        clients.clear();
    }

    private record SessionAtIssuer(SessionRowKey session, String issuer, String user) {
    }

    private record SignedOutClients(List<ObjectNode> entries, StringBuilder idSalt) {
    }
}
