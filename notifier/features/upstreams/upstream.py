"""The values of this feature: the end of a session at an upstream OpenID Provider, and the local sessions of it.

The verified claims of a logout token are queued as a message of a source with the prefix `upstream/`. Nothing is lost
while the local sessions cannot be looked up. A worker looks them up, and publishes an event for each.
"""

import hashlib
from typing import Literal, Protocol

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

from notifier.delivery.facts import Fact
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.message import Message
from notifier.model.record import record
from notifier.model.session_ended import SessionEnded

SOURCE_PREFIX = "upstream/"
LOOK_UP_TIMEOUT_SECONDS = 5.0
MAX_SESSIONS = 1000  # of one look-up; more mean that its query is wrong


@record
class UpstreamSession:
    """The session that ended at the upstream `iss`. Without `sid`, all sessions of the user `sub` ended."""

    iss: str
    sub: str | None
    sid: str | None


@record
class LocalSession:
    """A session at the local identity server, and the clients to notify."""

    sub: str | None
    sid: str | None
    clients: tuple[str, ...] | Literal["*"]


@record
class LocalSessions:
    """The sessions at the local issuer `iss` that end with a session at an upstream. There may be none."""

    iss: str
    sessions: tuple[LocalSession, ...]


@record
class SessionsUnavailable:
    """A look-up failed, and must be repeated. `text`: the reason, without `sub` and `sid`."""

    text: str


@record
class SessionsLookedUp(Fact):
    """The fact of a look-up of local sessions. `text`: the reason, unless sessions were found.

    `away`: the look-up failed and will be repeated. `given_up`: it failed for too long; the message is dead.
    """

    upstream: str
    result: Literal["found", "no_session", "away", "given_up"]
    text: str = ""


@record
class UpstreamSessionEnd:
    """The end of a session at an upstream, at `ended_at` (epoch seconds). Event ids derive from `id`."""

    upstream: str
    upstream_session: UpstreamSession
    id: str
    ended_at: float


class _SessionEndDocument(TypedDict):
    id: str
    iss: str
    sub: str | None
    sid: str | None
    ended_at: float


_DOCUMENT = TypeAdapter(_SessionEndDocument)


def dump_session_end(session_end: UpstreamSessionEnd) -> bytes:
    """Return the body of the queued message."""
    session = session_end.upstream_session
    members = {"id": session_end.id, "iss": session.iss, "sub": session.sub, "sid": session.sid}
    return to_json({**members, "ended_at": session_end.ended_at})


def upstream_of(message: Message) -> str:
    """Return the name of the upstream of a queued message."""
    return (message.source or "").removeprefix(SOURCE_PREFIX)


def load_session_end(upstream: str, body: bytes) -> UpstreamSessionEnd:
    """Parse the output of `dump_session_end`. Raises MalformedEvent."""
    try:
        document = _DOCUMENT.validate_json(body)
    except ValidationError:
        raise MalformedEvent([InputIssue("", "is not an upstream's session end that notifier wrote")]) from None
    upstream_session = UpstreamSession(iss=document["iss"], sub=document["sub"], sid=document["sid"])
    return UpstreamSessionEnd(
        upstream=upstream, upstream_session=upstream_session, id=document["id"], ended_at=document["ended_at"]
    )


def derive_session_end_id(upstream: str, *parts: str | None) -> str:
    """Return a digest of the parts as the id of a session end or event. It is the same at all workers."""
    return hashlib.blake2b(to_json([upstream, *parts]), digest_size=16).hexdigest()


def to_local_session(upstream_session: UpstreamSession, prefix: str) -> LocalSession:
    """Return the local session with the same `sid`, and the `sub` with a prefix. All clients are notified."""
    sub = None if upstream_session.sub is None else prefix + upstream_session.sub
    return LocalSession(sub=sub, sid=upstream_session.sid, clients="*")


def to_local_event(
    session_end: UpstreamSessionEnd, iss: str, session: LocalSession, received_at: float | None = None
) -> SessionEnded:
    """Return the event of a local session. Its id is the same each time that the message of the session end is read."""
    return SessionEnded(
        id=derive_session_end_id(session_end.upstream, session_end.id, session.sub, session.sid),
        id_given=True,
        iss=iss,
        sub=session.sub,
        sid=session.sid,
        clients=session.clients,
        ended_at=session_end.ended_at,
        publisher=session_end.upstream,
        received_at=received_at,
    )


class SessionFinder(Protocol):
    """Looks up the local sessions that end with a session at one upstream OpenID Provider."""

    async def look_up(self, upstream_session: UpstreamSession) -> LocalSessions | SessionsUnavailable:
        """Return the matching local sessions within a bounded time. Never raises."""
