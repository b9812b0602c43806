"""Defines the end of a session at an upstream OpenID Provider, and the sessions here that end with it.

The verified claims are queued as a message of a source whose name begins with `upstream/`, so that nothing is lost
while nobody can say which session here is meant. A worker looks that up, and writes an event for each session.
"""

import hashlib
from typing import Literal, Protocol

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.delivery.facts import FeatureFact
from notifier.model.errors import MalformedEvent, Mistake
from notifier.model.frozen import frozen
from notifier.model.message import Message
from notifier.model.session_ended import SessionEnded

PREFIX = "upstream/"
WITHIN = 5.0  # seconds for one question of whose session it is
MOST = 1000
"""Sessions that one answer may have. A question that ends more of them is a wrong one."""


@frozen
class Question:
    """Whose session ended at the upstream `iss`. With `sub` alone all sessions of the user did."""

    iss: str
    sub: str | None
    sid: str | None


@frozen
class LocalSession:
    """A session at our own identity server, and the clients to be told."""

    sub: str | None
    sid: str | None
    clients: tuple[str, ...] | Literal["*"]


@frozen
class LocalSessions:
    """The sessions that a question means, at the issuer `iss`; none if nobody here is signed in by that session."""

    iss: str
    sessions: tuple[LocalSession, ...]


@frozen
class SessionsAway:
    """Nobody can say now which sessions are meant. `text` says why, without `sub` and `sid`."""

    text: str


@frozen
class UpstreamLookedUp(FeatureFact):
    """The result of a look-up of the sessions here that ended with one at an upstream. `text`: the reason if none did.

    `away`: the look-up is repeated. `given_up`: it was repeated for as long as a delivery lives, and is a dead letter.
    """

    upstream: str
    result: Literal["found", "no_session", "away", "given_up"]
    text: str = ""


@frozen
class EndedUpstream:
    """What is queued: the question, when the session ended (epoch seconds), and the id that its events derive from."""

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
    """The body of the message."""
    asked = ending.question
    return to_json({"id": ending.id, "iss": asked.iss, "sub": asked.sub, "sid": asked.sid, "ended_at": ending.ended_at})


def upstream_of(message: Message) -> str:
    """The name of the upstream whose message it is."""
    return (message.source or "").removeprefix(PREFIX)


def load_ending(upstream: str, body: bytes) -> EndedUpstream:
    """The inverse of `dump_ending`. Raises MalformedEvent."""
    try:
        document = _DOCUMENT.validate_json(body)
    except ValidationError:
        raise MalformedEvent([Mistake("", "is no end of an upstream's session that notifier wrote")]) from None
    question = Question(iss=document["iss"], sub=document["sub"], sid=document["sid"])
    return EndedUpstream(upstream=upstream, question=question, id=document["id"], ended_at=document["ended_at"])


def ending_id(upstream: str, *parts: str | None) -> str:
    """The id of an ending: the same for the same upstream and parts, at whichever worker."""
    return hashlib.blake2b(to_json([upstream, *parts]), digest_size=16).hexdigest()


def same_session(question: Question, prefix: str) -> LocalSession:
    """The session here, where users and sessions are called as at the upstream. All clients are told."""
    sub = None if question.sub is None else prefix + question.sub
    return LocalSession(sub=sub, sid=question.sid, clients="*")


def ended_here(ending: EndedUpstream, iss: str, session: LocalSession) -> SessionEnded:
    """The event of one session here. Its id is the same whenever the message is read again."""
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
    """Knows which sessions here belong to one at an upstream OpenID Provider."""

    def has(self, upstream: str) -> bool:
        """Return True if an upstream of this name is configured."""

    async def look_up(self, upstream: str, question: Question) -> LocalSessions | SessionsAway:
        """Return the sessions that are meant. Never raises.

        It bounds its own time.
        """
