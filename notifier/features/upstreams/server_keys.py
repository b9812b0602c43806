"""Holds the JWK Set of a relayed identity server. The same set verifies its logout tokens and is served to clients.

notifier never answers more than the server itself would. In doubt nothing is served, and the proxy asks the server:

- After a successful reading the set is served for FRESH_SECONDS, then read again.
- While a reading takes longer than MAX_WAIT_SECONDS, or the server is unreachable (connection, timeout, 5xx), the set
  is held, for MAX_HELD_SECONDS since it was read.
- A reading that finds no usable set (another status, no key, a key beyond the bounds), or that leads to notifier
  itself, drops the set at once.

Servers sign with a key as soon as they publish it, and many send a token once. So a token with an unknown `kid` waits
for a reading that began after its arrival. All tokens and requests share one reading. Strangers can invent kids, so a
bounded number of tokens waits.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from typing import TypeAlias

import structlog

from notifier.features.upstreams.joined_keys import LOOP_TEXT, GetOwnJwks, JoinedSet, join_keys, read_server_set
from notifier.model.errors import describe_error
from notifier.model.moment import Clock
from notifier.model.record import copy_record, record
from notifier.model.shared_resources import shared_bound, shared_task
from notifier.network.http.issuer_document import LOOP_STATUS, DocumentIssue, IssuerDocument
from notifier.tokens.security_event_token import KeysUnavailable
from notifier.tokens.transmitter_keys import PublishedSet, ReadKeySet, VerifyingKey

FRESH_SECONDS = 2.0  # after a reading, in which the set is not read again
RETRY_SECONDS = 1.0  # the same after a failed reading: few tokens may meet unread keys
UNKNOWN_INTERVAL_SECONDS = 0.5  # between readings for tokens with unknown keys, which strangers can invent
MAX_WAITING_TOKENS = shared_bound(256)  # that wait for a reading; a token with a known kid needs none
MAX_WAIT_SECONDS = 0.3  # for a reading, from its begin: some clients wait 0.5 s for a JWK Set (Nimbus)
MAX_HELD_SECONDS = 300.0  # after which a set that cannot be read again is not used: a key may have been revoked
MAX_CACHED_SECONDS = 300  # of Cache-Control; no longer than the server allows, so that no cache hides a new key
KEEP_INTERVAL_SECONDS = 60.0  # between readings without a request, so that a set is held when the server fails


class JwksResult(StrEnum):
    """The results of a request of the joined set: the `result` label of `relay_jwks_requests_total`."""

    FRESH = "fresh"
    HELD = "held"
    AWAY = "away"
    UNUSABLE = "unusable"
    LOOP = "loop"


@record
class HeldKeys:
    """A set that was read. `max_age`: seconds for which a client may cache it. `result`: FRESH, or else HELD.

    The keys verify tokens. `joined`: what clients get.
    """

    keys: PublishedSet
    joined: JoinedSet
    max_age: int
    result: JwksResult = JwksResult.FRESH

    def as_held(self) -> "HeldKeys":
        """Return the set as one that may be older than the server allows."""
        return copy_record(self, max_age=0, result=JwksResult.HELD)


KeysOrReason: TypeAlias = HeldKeys | JwksResult
"""A set, or why there is none: AWAY, UNUSABLE or LOOP."""


def result_of(held: KeysOrReason) -> JwksResult:
    """Return the result of a request of the set."""
    return held.result if isinstance(held, HeldKeys) else held


class ServerKeys:
    """The JWK Set of one server, which `read` fetches. Its reading must be cancelled at the end.

    `name`: of the relay. `monotonic`: a clock that never jumps.
    """

    def __init__(self, name: str, read: ReadKeySet, get_own_jwks: GetOwnJwks, monotonic: Clock) -> None:
        self._name = name
        self._read = read
        self._get_own_jwks = get_own_jwks
        self._monotonic = monotonic
        self._held: KeysOrReason = JwksResult.AWAY
        self._began_at = self._due = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._waiting = 0
        self._reason: str | None = None

    @property
    def held(self) -> KeysOrReason:
        """The set, unless it was dropped or is too old. It is not read."""
        is_old = isinstance(self._held, HeldKeys) and self._age_seconds(self._held) > MAX_HELD_SECONDS
        return JwksResult.AWAY if is_old else self._held

    def _age_seconds(self, held: HeldKeys) -> float:
        return self._monotonic() - held.keys.began_at

    async def current(self, within: float | None = MAX_WAIT_SECONDS) -> KeysOrReason:
        """Return the set, read again if that is due; wait until `within` seconds after the reading began.

        None: until it ends.
        """
        if self._reading is None and self._monotonic() >= self._due:
            self._begin_reading()
        if self._reading is not None:
            left = None if within is None else max(self._began_at + within - self._monotonic(), 0.0)
            await asyncio.wait({self._reading}, timeout=left)
        held = self.held
        if isinstance(held, JwksResult) or self._reading is None or self._age_seconds(held) <= FRESH_SECONDS:
            return held
        return held.as_held()  # read up to KEEP_INTERVAL_SECONDS ago

    async def matching_keys(
        self, kid: str | None, alg: str, *, reread: bool = False, may_wait: Callable[[], bool] = lambda: True
    ) -> tuple[VerifyingKey, ...] | KeysUnavailable:
        """Return the keys that may verify a token with this header. The caller limits the time. See `TransmitterKeys`.

        Without a set it waits for the whole reading, since the server may make its keys only then (Hydra).
        """
        arrived_at = self._monotonic()
        if isinstance(self.held, JwksResult):
            await self._wait(partial(self.current, None))
        held = self.held if isinstance(self.held, JwksResult) else await self.current()
        if isinstance(held, JwksResult):
            return KeysUnavailable(text="The keys of the issuer cannot be read; send the token again")
        keys = held.keys.matching_keys(kid, alg)
        if keys and not reread:
            return keys
        if held.keys.began_at < arrived_at and may_wait():
            await self._wait(partial(self._read_after, arrived_at))
            held = self.held
            if isinstance(held, JwksResult) or held.keys.began_at < arrived_at:
                return KeysUnavailable(text="The key of the token is not known yet; send the token again")
            return held.keys.matching_keys(kid, alg)
        return ()

    def cancel(self) -> None:
        """Cancel the reading."""
        if self._reading is not None:
            self._reading.cancel()

    async def _wait(self, until_read: Callable[[], Awaitable[object]]) -> None:
        """Wait for a reading, unless too many tokens do."""
        if self._waiting < MAX_WAITING_TOKENS:
            self._waiting += 1
            try:
                await until_read()
            finally:
                self._waiting -= 1

    async def _read_after(self, moment: float) -> None:
        """Wait for a reading that began after `moment`."""
        while self._reading is not None or self._began_at < moment:
            if self._reading is not None:
                await asyncio.wait({self._reading})
            elif (pause := self._began_at + UNKNOWN_INTERVAL_SECONDS - self._monotonic()) > 0:
                await asyncio.sleep(pause)
            else:
                self._begin_reading()

    def _begin_reading(self) -> None:
        self._began_at = self._monotonic()
        self._reading = shared_task(self._read_set())

    async def _read_set(self) -> None:
        try:
            try:
                reason = self._store(await self._read())
            except Exception as error:  # noqa: BLE001  in doubt nothing is served
                self._held, reason = JwksResult.UNUSABLE, describe_error(error)
            if reason is not None and reason != self._reason:
                structlog.get_logger().warning(
                    "relay_keys_fault", upstream=self._name, reason=reason,
                    help="notifier explain NotifierUpstreamRefused",
                )  # fmt: skip
            self._reason = reason
        finally:
            is_fresh = result_of(self._held) is JwksResult.FRESH
            self._due = self._monotonic() + (FRESH_SECONDS if is_fresh else RETRY_SECONDS)
            self._reading = None

    def _store(self, document: IssuerDocument | DocumentIssue) -> str | None:
        """Hold the set of the document, or drop the held one. Return the reason, or a fault of the new set."""
        if isinstance(document, DocumentIssue):
            if document.status == LOOP_STATUS:
                self._held = JwksResult.LOOP
                return f"{document.text}: jwks_uri {LOOP_TEXT}"
            if not document.is_outage:
                self._held = JwksResult.UNUSABLE
            else:
                self._held = self._held.as_held() if isinstance(self._held, HeldKeys) else JwksResult.AWAY
            return document.text
        server = read_server_set(document.content)
        if isinstance(server, str):
            self._held = JwksResult.LOOP if server == LOOP_TEXT else JwksResult.UNUSABLE
            return f"the server's JWK Set {server}"
        joined = join_keys(server, self._get_own_jwks())
        max_age = int(min(document.fresh_seconds or 0, MAX_CACHED_SECONDS))
        keys = PublishedSet(published=server.published, began_at=self._began_at)
        self._held = HeldKeys(keys=keys, joined=joined, max_age=max_age)
        if server.has_secrets:
            return "the server's JWK Set has private keys, which are not passed on: have them replaced"
        return "; ".join(f"key {kid} is left out: {why}" for kid, why in joined.left_out.items()) or None
