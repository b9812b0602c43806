"""Look up sessions in a thread with a separate event loop, so that a slow look-up never blocks the worker's loop.

A look-up that hangs keeps its slot until its thread has ended; its caller gets an answer long before.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from notifier.features.upstreams.upstream import MOST, WITHIN, LocalSession, Question, SessionsAway
from notifier.features.upstreams.upstream_settings import SessionsHttpSettings
from notifier.features.upstreams.upstream_token import named
from notifier.model.errors import SourceFault
from notifier.model.own_thread import in_own_thread
from notifier.model.redaction import without_subject
from notifier.network.http.json_over_http import place_of, web
from notifier.network.http.json_parts import Bounds

AT_A_TIME = 4  # concurrent look-ups in one database or endpoint; each has a connection and a thread
WAIT = 1.0  # seconds that a look-up waits for a slot, while its message is held
SPARE = 2.0  # seconds beyond a look-up's timeout, after which the caller stops waiting


class SessionKeeper(Protocol):
    """Knows the sessions."""

    async def ask(self, question: Question) -> tuple[LocalSession, ...]:
        """Return the matching sessions. Raises SourceFault. May block its thread, but bounds its time."""


class SessionQuestions:
    """Runs the look-ups at one keeper of sessions, AT_A_TIME at once."""

    def __init__(self, keeper: SessionKeeper) -> None:
        self._keeper = keeper
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def sessions(self, question: Question) -> tuple[LocalSession, ...] | SessionsAway:
        """Return the matching sessions, or the reason of a failed look-up. Never raises."""
        try:
            async with asyncio.timeout(WAIT):
                await self._turns.acquire()
        except TimeoutError:
            return SessionsAway(text=f"{AT_A_TIME} questions are under way, and none was answered within {WAIT:g} s")
        answer = in_own_thread(lambda: asyncio.run(_answer(self._keeper, question)), "sessions")
        answer.add_done_callback(lambda _: self._turns.release())
        done, _ = await asyncio.wait({answer}, timeout=WITHIN + SPARE)
        return answer.result() if done else SessionsAway(text=f"no answer within {WITHIN:g} s")


async def _answer(keeper: SessionKeeper, question: Question) -> tuple[LocalSession, ...] | SessionsAway:
    try:
        return await keeper.ask(question)
    except SourceFault as fault:
        return SessionsAway(text=without_subject(str(fault), question.sub, question.sid))
    except Exception as error:  # noqa: BLE001  of whatever library: it is asked again later
        return SessionsAway(text=f"asking failed with {type(error).__name__}")


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
    """Return the sessions without duplicates, with the clients of all rows. Raises SourceFault if too many."""
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


_BOUNDS = Bounds(answer=1024 * 1024)  # bytes: the sessions of one user, with their clients


class SessionEndpoint:
    """Looks up sessions at an endpoint of the identity server."""

    def __init__(self, settings: SessionsHttpSettings) -> None:
        self._settings = settings

    async def ask(self, question: Question) -> tuple[LocalSession, ...]:
        """Return the matching sessions. Raises SourceFault."""
        url = self._settings.url
        document = {"iss": question.iss, "sub": question.sub, "sid": question.sid}
        async with web(self._settings.tls, WITHIN, _BOUNDS) as server:
            answer = await server.ask("POST", url, self._settings.headers, json=document)
        if answer.status != 200:
            raise SourceFault(f"{place_of(url)} answered {answer.status}")
        content = answer.content
        rows = content.get("sessions") if isinstance(content, dict) else content
        if not isinstance(rows, list):
            raise SourceFault(f'{place_of(url)}: the answer is no list of sessions, nor has it a member "sessions"')
        return gathered(_session(row, number) for number, row in enumerate(rows, 1))


def _session(row: object, number: int) -> LocalSession:
    if not isinstance(row, dict):
        raise SourceFault(f"session {number} is no object")
    try:
        return read_session(row.get("sub"), row.get("sid"), row.get("clients"))
    except ValueError as error:
        raise SourceFault(f"session {number} {error}") from None
