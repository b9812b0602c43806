"""Define the end of a session at an upstream OpenID Provider, and the local sessions that end with it.

The verified claims are queued as a message of a source whose name begins with `upstream/`, so that nothing is lost
while the local sessions cannot be looked up. A worker looks them up, and publishes an event for each.
"""

import hashlib
from typing import Literal, Protocol

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

from notifier.delivery.facts import Fact
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.frozen import frozen
from notifier.model.message import Message
from notifier.model.session_ended import SessionEnded

SOURCE_PREFIX = "upstream/"
LOOK_UP_TIMEOUT_SECONDS = 5.0
MAX_SESSIONS = 1000
"""The most sessions in one answer. A look-up that returns more is misconfigured."""


@frozen
class UpstreamSession:
    """The session that ended at the upstream `iss`. With `sub` alone, all sessions of the user ended."""

    iss: str
    sub: str | None
    sid: str | None


@frozen
class LocalSession:
    """A session at the local identity server, and the clients to notify."""

    sub: str | None
    sid: str | None
    clients: tuple[str, ...] | Literal["*"]


@frozen
class LocalSessions:
    """The matching sessions at the issuer `iss`; empty if that session signed nobody in here."""

    iss: str
    sessions: tuple[LocalSession, ...]


@frozen
class SessionsUnavailable:
    """The look-up failed and is to be repeated. `text` has the reason, without `sub` and `sid`."""

    text: str


@frozen
class SessionsLookedUp(Fact):
    """The result of a look-up of the local sessions that end with an upstream's. `text`: the reason if none did.

    `away`: the look-up is repeated. `given_up`: it was repeated for a delivery's maximum age, and is a dead letter.
    """

    upstream: str
    result: Literal["found", "no_session", "away", "given_up"]
    text: str = ""


@frozen
class UpstreamSessionEnd:
    """The queued end of a session: the question, the time (epoch seconds), and the id from which event ids derive."""

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
    """Return the body of the message."""
    ended = session_end.upstream_session
    return to_json(
        {"id": session_end.id, "iss": ended.iss, "sub": ended.sub, "sid": ended.sid, "ended_at": session_end.ended_at}
    )


def upstream_of(message: Message) -> str:
    """Return the name of the message's upstream."""
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
    """Return the id of a session's end: the same for the same upstream and parts at every worker."""
    return hashlib.blake2b(to_json([upstream, *parts]), digest_size=16).hexdigest()


def to_local_session(question: UpstreamSession, prefix: str) -> LocalSession:
    """Return the local session with the upstream's `sub` and `sid`. All clients are notified."""
    sub = None if question.sub is None else prefix + question.sub
    return LocalSession(sub=sub, sid=question.sid, clients="*")


def to_local_event(session_end: UpstreamSessionEnd, iss: str, session: LocalSession) -> SessionEnded:
    """Return the event of one local session. Its id is the same each time the message is read."""
    return SessionEnded(
        id=derive_session_end_id(session_end.upstream, session_end.id, session.sub, session.sid),
        id_given=True,
        iss=iss,
        sub=session.sub,
        sid=session.sid,
        clients=session.clients,
        ended_at=session_end.ended_at,
        publisher=session_end.upstream,
    )


class UpstreamSessions(Protocol):
    """Looks up the local sessions that belong to one at an upstream OpenID Provider."""

    def is_configured(self, upstream: str) -> bool:
        """Return True if an upstream of this name is configured."""

    async def look_up(self, upstream: str, question: UpstreamSession) -> LocalSessions | SessionsUnavailable:
        """Return the matching local sessions. Never raises.

        The implementation bounds the time.
        """
