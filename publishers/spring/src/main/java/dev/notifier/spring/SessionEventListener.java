package dev.notifier.spring;

import jakarta.servlet.http.HttpSession;
import java.util.function.Supplier;
import org.springframework.context.ApplicationListener;
import org.springframework.security.core.session.AbstractSessionEvent;
import org.springframework.security.core.session.SessionDestroyedEvent;
import org.springframework.security.core.session.SessionIdChangedEvent;
import org.springframework.security.web.session.HttpSessionDestroyedEvent;

/** Publishes the ends of sessions that the container reports, or a store of Spring Session that publishes events, such as Redis. */
final class SessionEventListener implements ApplicationListener<AbstractSessionEvent> {
    private static final long MILLIS_PER_SECOND = 1_000;

    private final Supplier<SessionEndPublisher> ends;

    SessionEventListener(Supplier<SessionEndPublisher> ends) {
        this.ends = ends;
    }

    @Override
    public void onApplicationEvent(AbstractSessionEvent event) {
        if (event instanceof SessionDestroyedEvent destroyed) {
            if (event instanceof HttpSessionDestroyedEvent http && isExpired(http.getSession())) {
                ends.get().onExpired(destroyed.getId());
            } else {
                ends.get().onSignOut(destroyed.getId());
            }
        } else if (event instanceof SessionIdChangedEvent changed) {
            ends.get().onIdChanged(changed.getOldSessionId(), changed.getNewSessionId());
        }
    }

    private static boolean isExpired(HttpSession session) {
        try {
            long limitMillis = session.getMaxInactiveInterval() * MILLIS_PER_SECOND;
            return limitMillis > 0 && System.currentTimeMillis() - session.getLastAccessedTime() >= limitMillis;
        } catch (IllegalStateException invalidated) {
            return false;
        }
    }
}
