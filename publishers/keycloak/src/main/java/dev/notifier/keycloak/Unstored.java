package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.notifier.keycloak.event.Ending;
import dev.notifier.keycloak.event.Lane;
import dev.notifier.keycloak.event.SessionEnded;
import dev.notifier.keycloak.event.SessionKey;
import dev.notifier.keycloak.outbox.Slip;
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

/** Where sessions are not in the database: what Keycloak would have posted, gathered for each session within a request. */
final class Unstored extends AbstractKeycloakTransaction {
    private static final String ATTRIBUTE = Unstored.class.getName();

    private final KeycloakSession session;
    private final Publisher publisher;
    private final Map<String, Gathered> gathered = new LinkedHashMap<>();

    private Unstored(KeycloakSession session, Publisher publisher) {
        this.session = session;
        this.publisher = publisher;
    }

    static Unstored of(KeycloakSession session, Publisher publisher) {
        Unstored found = session.getAttribute(ATTRIBUTE, Unstored.class);
        if (found == null) {
            found = new Unstored(session, publisher);
            session.getTransactionManager().enlistAfterCompletion(found);
            session.setAttribute(ATTRIBUTE, found);
        }
        return found;
    }

    void parted(UserSessionModel user, AuthenticatedClientSessionModel client) {
        String issuer = client.getNote(OIDCLoginProtocol.ISSUER);
        String subject = user.getUser().getId();
        ObjectNode entry = issuer == null ? null : new Clients(session, client.getRealm(), publisher.settings().includeClientMetadata())
                .entry(client.getClient().getId(), issuer, subject);
        if (entry != null && !Clients.isNobody(entry)) {
            Gathered of = gathered.computeIfAbsent(user.getId() + '\n' + issuer, key -> new Gathered(new SessionKey(user.getId(), user.getStarted(), false, null),
                    issuer, subject, new ArrayList<>(), new StringBuilder()));
            of.clients.add(entry);
            of.salt.append(client.getClient().getId()).append(client.getStarted());
        }
    }

    @Override
    protected void commitImpl() {
        publisher.guarded("handing endings over", () -> gathered.values().forEach(each -> {
            List<Ending> endings = new SessionEnded(each.session, each.issuer, each.subject, each.clients, Instant.now().truncatedTo(ChronoUnit.MILLIS), null,
                    each.salt.toString()).endings(Lane.EVENTS);
            Slip slip = publisher.outbox().prepare(endings);
            if (slip != null) {
                publisher.outbox().happened(slip);
            }
        }));
        gathered.clear();
    }

    @Override
    protected void rollbackImpl() {
        gathered.clear();
    }

    private record Gathered(SessionKey session, String issuer, String subject, List<ObjectNode> clients, StringBuilder salt) {
    }
}
