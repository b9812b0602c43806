package dev.notifier.spring;

import dev.notifier.spring.publisher.monitoring.NoMetrics;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.springframework.mock.env.MockEnvironment;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.server.authorization.client.InMemoryRegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.settings.AuthorizationServerSettings;
import org.springframework.security.oauth2.server.authorization.settings.ClientSettings;

/** A publisher with its outbox, and sessions that end when a test says so. */
final class TestPublisher implements AutoCloseable {
    static final String ISSUER = "https://id.example.com";

    final OutboxEvents outbox;
    final NotifierPublisher publisher;
    final SessionClientStore store;
    final Set<String> living = new HashSet<>();
    final SessionStores stores;
    final ClientEntryFactory entries;
    final SessionEndPublisher ends;

    /** @param areShared whether the sessions are shared by all processes */
    TestPublisher(Path folder, SessionClientStore store, boolean areShared) {
        this.outbox = new OutboxEvents(folder);
        this.store = store;
        this.stores = new SessionStores(store, areShared ? id -> !living.contains(id) : null, new BoundedCalls());
        NotifierSettings settings = NotifierSettings.read(new MockEnvironment().withProperty("notifier.url", "http://127.0.0.1:9")
                .withProperty("notifier.outbox.folder", folder.toString()).withProperty("notifier.public-keys", "none").withProperty("notifier.drain-limit", "50ms"));
        this.publisher = new NotifierPublisher(settings, new NoMetrics());
        publisher.start();
        this.entries = new ClientEntryFactory(new InMemoryRegisteredClientRepository(client("shop"), client("mail")),
                AuthorizationServerSettings.builder().build(), true);
        this.ends = new SessionEndPublisher(stores, publisher, entries);
    }

    static RegisteredClient client(String id) {
        ClientSettings.Builder settings = ClientSettings.builder();
        if (id.equals("shop")) {
            settings.setting(BackchannelLogoutSettings.URI, "https://shop.example.com/out").setting(BackchannelLogoutSettings.SESSION_REQUIRED, true);
        }
        return RegisteredClient.withId("id-" + id).clientId(id).clientSecret("{noop}secret-" + id).authorizationGrantType(AuthorizationGrantType.AUTHORIZATION_CODE)
                .redirectUri("https://" + id + ".example.com/callback").scope("openid").clientSettings(settings.build()).build();
    }

    static SessionClient row(String key, String sid, String client) {
        return new SessionClient(key, sid, client, ISSUER, "alice", 1_000, SessionClient.SHARED);
    }

    /** Adds a living session with the clients shop and mail. */
    void addSession(String key, String sid) {
        living.add(key);
        List.of("shop", "mail").forEach(client -> store.add(row(key, sid, client)));
    }

    @Override
    public void close() {
        publisher.stop();
    }
}
