"""Reads sessions from the rows of a database or an endpoint, by the rules of an event."""

from collections.abc import Iterable

from notifier.features.upstreams.upstream import MOST, LocalSession
from notifier.features.upstreams.upstream_token import named
from notifier.model.errors import SourceFault


def read_session(sub: object, sid: object, clients: object) -> LocalSession:
    """Return the session of one row. `clients` is a list, `*` or None (all clients).

    Raises ValueError, whose text shows no value.
    """
    for name, value in (("sub", sub), ("sid", sid)):
        if value is not None and not named(value):
            raise ValueError(f"has a {name} that is no plain text")
    if sub is None and sid is None:
        raise ValueError("has neither sub nor sid")
    if clients is None or clients == "*":
        return LocalSession(sub=_text(sub), sid=_text(sid), clients="*")
    if not isinstance(clients, list) or not all(named(client) for client in clients):
        raise ValueError('has clients that are neither a list of client ids nor "*"')
    return LocalSession(sub=_text(sub), sid=_text(sid), clients=tuple(dict.fromkeys(clients)))


def gathered(rows: Iterable[LocalSession]) -> tuple[LocalSession, ...]:
    """Return the sessions, each once, with the clients of all its rows. Raises SourceFault if they are too many."""
    sessions: dict[tuple[str | None, str | None], LocalSession] = {}
    for number, row in enumerate(rows, 1):
        if number > MOST:
            raise SourceFault(f"the answer has more than {MOST} sessions: it does not ask for those of one user")
        known = sessions.get((row.sub, row.sid))
        sessions[row.sub, row.sid] = row if known is None else _both(known, row)
    return tuple(sessions.values())


def _both(session: LocalSession, other: LocalSession) -> LocalSession:
    if session.clients == "*" or other.clients == "*":
        return LocalSession(sub=session.sub, sid=session.sid, clients="*")
    return LocalSession(sub=session.sub, sid=session.sid, clients=tuple(dict.fromkeys(session.clients + other.clients)))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
