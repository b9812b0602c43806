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

PREFIX = "upstream/"
WITHIN = 5.0  # seconds for one look-up
MOST = 1000
"""The most sessions in one answer. A look-up that returns more is misconfigured."""


@frozen
class Question:
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
class SessionsAway:
    """The look-up failed and is to be repeated. `text` has the reason, without `sub` and `sid`."""

    text: str


@frozen
class UpstreamLookedUp(Fact):
    """The result of a look-up of the local sessions that end with an upstream's. `text`: the reason if none did.

    `away`: the look-up is repeated. `given_up`: it was repeated for a delivery's maximum age, and is a dead letter.
    """

    upstream: str
    result: Literal["found", "no_session", "away", "given_up"]
    text: str = ""


@frozen
class EndedUpstream:
    """The queued end of a session: the question, the time (epoch seconds), and the id from which event ids derive."""

    upstream: str
    question: Question
    id: str
    ended_at: float


class _Document(TypedDict):
    id: str
    iss: str
    sub: str | None
    sid: str | None
    ended_at: float


_DOCUMENT = TypeAdapter(_Document)


def dump_ending(ending: EndedUpstream) -> bytes:
    """Return the body of the message."""
    asked = ending.question
    return to_json({"id": ending.id, "iss": asked.iss, "sub": asked.sub, "sid": asked.sid, "ended_at": ending.ended_at})


def upstream_of(message: Message) -> str:
    """Return the name of the message's upstream."""
    return (message.source or "").removeprefix(PREFIX)


def load_ending(upstream: str, body: bytes) -> EndedUpstream:
    """Parse the output of `dump_ending`. Raises MalformedEvent."""
    try:
        document = _DOCUMENT.validate_json(body)
    except ValidationError:
        raise MalformedEvent([InputIssue("", "is no end of an upstream's session that notifier wrote")]) from None
    question = Question(iss=document["iss"], sub=document["sub"], sid=document["sid"])
    return EndedUpstream(upstream=upstream, question=question, id=document["id"], ended_at=document["ended_at"])


def ending_id(upstream: str, *parts: str | None) -> str:
    """Return the id of a session's end: the same for the same upstream and parts at every worker."""
    return hashlib.blake2b(to_json([upstream, *parts]), digest_size=16).hexdigest()


def same_session(question: Question, prefix: str) -> LocalSession:
    """Return the local session with the upstream's `sub` and `sid`. All clients are notified."""
    sub = None if question.sub is None else prefix + question.sub
    return LocalSession(sub=sub, sid=question.sid, clients="*")


def ended_here(ending: EndedUpstream, iss: str, session: LocalSession) -> SessionEnded:
    """Return the event of one local session. Its id is the same each time the message is read."""
    return SessionEnded(
        id=ending_id(ending.upstream, ending.id, session.sub, session.sid),
        id_given=True,
        iss=iss,
        sub=session.sub,
        sid=session.sid,
        clients=session.clients,
        ended_at=ending.ended_at,
        publisher=ending.upstream,
    )


class UpstreamSessions(Protocol):
    """Looks up the local sessions that belong to one at an upstream OpenID Provider."""

    def has(self, upstream: str) -> bool:
        """Return True if an upstream of this name is configured."""

    async def look_up(self, upstream: str, question: Question) -> LocalSessions | SessionsAway:
        """Return the matching local sessions. Never raises.

        The implementation bounds the time.
        """
