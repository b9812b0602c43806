package dev.notifier.spring;

import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletRequestWrapper;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;
import java.io.IOException;
import java.util.function.Supplier;
import org.springframework.web.filter.OncePerRequestFilter;

/**
 * Publishes the session that a request ends, where the store of sessions publishes no events, such as Spring Session JDBC. It runs
 * directly inside `SessionRepositoryFilter`, and never reads a session that the request itself does not read.
 */
final class SessionEndFilter extends OncePerRequestFilter {
    /** `SessionRepositoryFilter.DEFAULT_ORDER`. */
    static final int SESSION_FILTER_ORDER = Integer.MIN_VALUE + 50;

    private final Supplier<SessionEndPublisher> ends;

    SessionEndFilter(Supplier<SessionEndPublisher> ends) {
        this.ends = ends;
    }

    @Override
    protected void doFilterInternal(HttpServletRequest request, HttpServletResponse response, FilterChain chain) throws ServletException, IOException {
        ObservedRequest observed = new ObservedRequest(request);
        try {
            chain.doFilter(observed, response);
        } finally {
            if (observed.sessionId != null) {
                ends.get().runGuarded(() -> reportChange(observed, request.getSession(false)));
            }
        }
    }

    /** A session whose id has changed keeps the time of its creation. */
    private void reportChange(ObservedRequest before, HttpSession after) {
        if (after == null || after.getCreationTime() != before.createdAt) {
            ends.get().onSignOut(before.sessionId);
        } else if (!after.getId().equals(before.sessionId)) {
            ends.get().onIdChanged(before.sessionId, after.getId());
        }
    }

    /** Remembers the first session that the request reads. */
    private final class ObservedRequest extends HttpServletRequestWrapper {
        private String sessionId;
        private long createdAt;

        ObservedRequest(HttpServletRequest request) {
            super(request);
        }

        @Override
        public HttpSession getSession() {
            return getSession(true);
        }

        @Override
        public HttpSession getSession(boolean create) {
            HttpSession session = super.getSession(create);
            if (sessionId == null && session != null && !session.isNew()) {
                sessionId = session.getId();
                createdAt = session.getCreationTime();
            }
            return session;
        }

        @Override
        public String changeSessionId() {
            getSession(false);
            String newId = super.changeSessionId();
            if (sessionId != null) { // other requests of the session may use its former id until this one ends
                ends.get().onIdChanging(sessionId, newId);
            }
            return newId;
        }
    }
}
