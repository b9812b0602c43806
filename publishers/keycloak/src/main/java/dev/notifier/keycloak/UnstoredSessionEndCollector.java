package dev.notifier.keycloak;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.notifier.publisher.event.OutgoingEvent;
import dev.notifier.publisher.event.Lane;
import dev.notifier.publisher.event.SessionEnded;
import dev.notifier.publisher.event.SessionKey;
import dev.notifier.publisher.outbox.OutboxEntry;
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
final class UnstoredSessionEndCollector extends AbstractKeycloakTransaction {
    private static final String ATTRIBUTE = UnstoredSessionEndCollector.class.getName();

    private final KeycloakSession session;
    private final Publisher publisher;
    private final Map<String, Gathered> gathered = new LinkedHashMap<>();

    private UnstoredSessionEndCollector(KeycloakSession session, Publisher publisher) {
        this.session = session;
        this.publisher = publisher;
    }

    static UnstoredSessionEndCollector of(KeycloakSession session, Publisher publisher) {
        UnstoredSessionEndCollector found = session.getAttribute(ATTRIBUTE, UnstoredSessionEndCollector.class);
        if (found == null) {
            found = new UnstoredSessionEndCollector(session, publisher);
            session.getTransactionManager().enlistAfterCompletion(found);
            session.setAttribute(ATTRIBUTE, found);
        }
        return found;
    }

    void parted(UserSessionModel user, AuthenticatedClientSessionModel client) {
        String issuer = client.getNote(OIDCLoginProtocol.ISSUER);
        String subject = user.getUser().getId();
        ObjectNode entry = issuer == null ? null : new ClientEntryCache(session, client.getRealm(), publisher.settings().includeClientMetadata())
                .entry(client.getClient().getId(), issuer, subject);
        if (entry != null && !ClientEntryCache.isNobody(entry)) {
            Gathered of = gathered.computeIfAbsent(user.getId() + '\n' + issuer, key -> new Gathered(new SessionKey(user.getId(), user.getStarted(), false, null),
                    issuer, subject, new ArrayList<>(), new StringBuilder()));
            of.clients.add(entry);
            of.salt.append(client.getClient().getId()).append(client.getStarted());
        }
    }

    @Override
    protected void commitImpl() {
        publisher.guarded("handing endings over", () -> gathered.values().forEach(each -> {
            List<OutgoingEvent> events = new SessionEnded(each.session, each.issuer, each.subject, each.clients, Instant.now().truncatedTo(ChronoUnit.MILLIS), null,
                    each.salt.toString()).events(Lane.EVENTS);
            OutboxEntry entry = publisher.outbox().prepare(events);
            if (entry != null) {
                publisher.outbox().happened(entry);
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
