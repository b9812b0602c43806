package dev.notifier.spring.sample;

import jakarta.servlet.http.HttpServletRequest;
import java.util.List;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.security.core.session.SessionInformation;
import org.springframework.security.core.session.SessionRegistry;
import org.springframework.security.core.userdetails.User;
import org.springframework.session.Session;
import org.springframework.session.SessionRepository;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** Ends sessions in each way that Spring has. */
@RestController
class SessionController {
    private final ObjectProvider<SessionRepository<? extends Session>> sessions;
    private final SessionRegistry registry;

    SessionController(ObjectProvider<SessionRepository<? extends Session>> sessions, SessionRegistry registry) {
        this.sessions = sessions;
        this.registry = registry;
    }

    /** Returns the id of the current session. */
    @GetMapping("/sample/session")
    String session(HttpServletRequest request) {
        return request.getSession().getId();
    }

    @PostMapping("/sample/invalidate")
    void invalidate(HttpServletRequest request) {
        request.getSession().invalidate();
    }

    @PostMapping("/sample/change-id")
    String changeId(HttpServletRequest request) {
        return request.changeSessionId();
    }

    @PostMapping("/sample/timeout")
    void setTimeout(HttpServletRequest request, @RequestParam("seconds") int seconds) {
        request.getSession().setMaxInactiveInterval(seconds);
    }

    /** Expires the user's sessions in the registry. Returns their number. */
    @PostMapping("/sample/admin/expire")
    int expire(@RequestParam("user") String user) {
        List<SessionInformation> found = registry.getAllSessions(User.withUsername(user).password("").build(), false);
        found.forEach(SessionInformation::expireNow);
        return found.size();
    }

    /** Deletes sessions in the shared store, as an administrator's job does. */
    @PostMapping("/sample/admin/delete")
    void delete(@RequestParam("session") List<String> ids) {
        ids.forEach(sessions.getObject()::deleteById);
    }

    /** Returns whether the shared store has the session. */
    @GetMapping("/sample/admin/lives")
    boolean lives(@RequestParam("session") String id) {
        return sessions.getObject().findById(id) != null;
    }
}
