"""Look up local sessions in a database or at an endpoint, in a thread, so that the worker's event loop is not blocked.

A look-up that hangs keeps its slot until its thread ends. Its caller waits for a bounded time only.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from notifier.features.upstreams.upstream import (
    LOOK_UP_TIMEOUT_SECONDS,
    MAX_SESSIONS,
    LocalSession,
    SessionsUnavailable,
    UpstreamSession,
)
from notifier.features.upstreams.upstream_settings import SessionsHttpSettings
from notifier.features.upstreams.upstream_token import is_plain_text, text_or_none
from notifier.model.errors import SourceFault, describe_error
from notifier.model.own_thread import run_in_thread
from notifier.model.redaction import redact_subject
from notifier.model.shared_resources import shared_slots
from notifier.network.http.json_client import open_web, redact_url
from notifier.network.http.json_parts import Bounds

MAX_CONCURRENT_LOOK_UPS = 4  # in one database or endpoint; each has a connection and a thread
SLOT_WAIT_SECONDS = 1.0  # for a free slot
LOOK_UP_GRACE_SECONDS = 2.0  # added to the timeout of a look-up; then the caller stops waiting


class SessionStore(Protocol):
    """A database or an endpoint with the local sessions."""

    async def find_sessions(self, upstream_session: UpstreamSession) -> tuple[LocalSession, ...]:
        """Return the matching sessions. Raises SourceFault. May block its thread until LOOK_UP_TIMEOUT_SECONDS."""


class SessionLookups:
    """Runs the look-ups in one store of sessions, up to MAX_CONCURRENT_LOOK_UPS at a time."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._slots = shared_slots(MAX_CONCURRENT_LOOK_UPS)

    async def look_up(self, upstream_session: UpstreamSession) -> tuple[LocalSession, ...] | SessionsUnavailable:
        """Return the matching sessions, or why the look-up failed. Never raises."""
        try:
            async with asyncio.timeout(SLOT_WAIT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            text = f"{MAX_CONCURRENT_LOOK_UPS} look-ups are in progress, and none ended within {SLOT_WAIT_SECONDS:g} s"
            return SessionsUnavailable(text=text)
        look_up = run_in_thread(lambda: asyncio.run(_look_up(self._store, upstream_session)), "sessions")
        look_up.add_done_callback(lambda _: self._slots.release())
        done, _ = await asyncio.wait({look_up}, timeout=LOOK_UP_TIMEOUT_SECONDS + LOOK_UP_GRACE_SECONDS)
        if not done:
            return SessionsUnavailable(text=f"no answer within {LOOK_UP_TIMEOUT_SECONDS:g} s")
        return look_up.result()


async def _look_up(
    store: SessionStore, upstream_session: UpstreamSession
) -> tuple[LocalSession, ...] | SessionsUnavailable:
    """Return the result of a look-up, or why it failed, without `sub` and `sid`. Never raises."""
    try:
        return await store.find_sessions(upstream_session)
    except SourceFault as fault:
        text = str(fault)
    except Exception as error:  # noqa: BLE001  libraries raise many types; the look-up is repeated
        text = f"the look-up failed: {describe_error(error)}"
    return SessionsUnavailable(text=redact_subject(text, upstream_session.sub, upstream_session.sid))


def read_session(sub: object, sid: object, clients: object) -> LocalSession:
    """Return the session of one row. `clients`: a list of client IDs; `*` or None for all clients.

    Raises ValueError, whose text contains no value.
    """
    for name, value in (("sub", sub), ("sid", sid)):
        if value is not None and not is_plain_text(value):
            raise ValueError(f"has a {name} that is not plain text")
    if sub is None and sid is None:
        raise ValueError("has neither sub nor sid")
    if clients is None or clients == "*":
        return LocalSession(sub=text_or_none(sub), sid=text_or_none(sid), clients="*")
    if not isinstance(clients, list) or not all(is_plain_text(client) for client in clients):
        raise ValueError('has clients that are neither a list of client ids nor "*"')
    return LocalSession(sub=text_or_none(sub), sid=text_or_none(sid), clients=tuple(dict.fromkeys(clients)))


def merge_sessions(rows: Iterable[LocalSession]) -> tuple[LocalSession, ...]:
    """Return each session once, with the clients of all its rows. Raises SourceFault above MAX_SESSIONS rows."""
    sessions: dict[tuple[str | None, str | None], LocalSession] = {}
    for number, row in enumerate(rows, 1):
        if number > MAX_SESSIONS:
            raise SourceFault(
                f"the answer has more than {MAX_SESSIONS} sessions: it does not ask for those of one user"
            )
        known = sessions.get((row.sub, row.sid))
        sessions[row.sub, row.sid] = row if known is None else _merge_clients(known, row)
    return tuple(sessions.values())


def _merge_clients(session: LocalSession, other: LocalSession) -> LocalSession:
    if session.clients == "*" or other.clients == "*":
        return LocalSession(sub=session.sub, sid=session.sid, clients="*")
    return LocalSession(sub=session.sub, sid=session.sid, clients=tuple(dict.fromkeys(session.clients + other.clients)))


_ANSWER_BOUNDS = Bounds(answer=1024 * 1024)  # the sessions of one user, with their clients


class SessionEndpoint:
    """Looks up sessions at an endpoint of the identity server."""

    def __init__(self, settings: SessionsHttpSettings) -> None:
        self._settings = settings

    async def find_sessions(self, upstream_session: UpstreamSession) -> tuple[LocalSession, ...]:
        """Return the matching sessions. Raises SourceFault."""
        url = self._settings.url
        document = {"iss": upstream_session.iss, "sub": upstream_session.sub, "sid": upstream_session.sid}
        async with open_web(self._settings.tls, LOOK_UP_TIMEOUT_SECONDS, _ANSWER_BOUNDS) as server:
            answer = await server.ask("POST", url, self._settings.headers, json=document)
        if answer.status != 200:
            raise SourceFault(f"{redact_url(url)} answered {answer.status}")
        content = answer.content
        rows = content.get("sessions") if isinstance(content, dict) else content
        if not isinstance(rows, list):
            text = 'the answer is neither a list of sessions nor an object with a member "sessions"'
            raise SourceFault(f"{redact_url(url)}: {text}")
        return merge_sessions(_to_session(row, number) for number, row in enumerate(rows, 1))


def _to_session(row: object, number: int) -> LocalSession:
    if not isinstance(row, dict):
        raise SourceFault(f"session {number} is not an object")
    try:
        return read_session(row.get("sub"), row.get("sid"), row.get("clients"))
    except ValueError as error:
        raise SourceFault(f"session {number} {error}") from None
