"""Gets the token by which Vault lets a key sign: from a file, or by logging in with an AppRole or a service account.

A token is renewed at half of its lease. Renewals grant less and less time as the token approaches its maximum life;
then a new log-in gets another token before the old token ends. Vault answers 403 to an expired or revoked token and
for a missing policy. A token that is not new is therefore discarded, and another token is tried once. (Some secret ids
are valid for a number of log-ins only.)

All signatures that need a token wait for one task: a signature whose time is over does not interrupt the log-in of the
others.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from notifier.features.signers.signer_settings import VaultKeySettings
from notifier.model.client import TlsFiles
from notifier.model.errors import SourceFault
from notifier.model.outcome import read_retry_after
from notifier.network.http.json_client import JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.settings.secret_text import secret_of
from notifier.tokens.signer import SignatureResult, SignerError

_BOUNDS = Bounds(answer=1024 * 1024, member=1024 * 1024)  # bytes; a key of a thousand versions is 0.6 MiB
_MAX_IDLE_CONNECTIONS = 256
TIMEOUT_SECONDS = 30.0  # after which a request ends whose caller has given up
_MAX_SHOWN_CHARS = 200  # characters of Vault's text
_VERSION_WORDS = ("requested version", "minimum encryption")
RENEW_LEASE_SHARE = 0.5  # of the lease
RETRY_LEASE_SHARE = 0.05  # of the lease after a renewal that failed
MIN_RENEWED_SHARE = 0.7  # of the first lease: less is granted only where the token's longest life is near
NEW_TOKEN_SECONDS = 30.0  # in which a refused token lacks a policy, and has not ended


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultAnswer:
    """An answer: its status, its JSON (None if it has none), and the seconds that it asks to wait."""

    status: int
    content: Any = field(repr=False)
    wait: float | None = None

    @property
    def words(self) -> str:
        """Return Vault's errors on one line. They contain no token and no secret id."""
        errors = self.content.get("errors") if isinstance(self.content, dict) else None
        words = " ".join(str(text) for text in errors) if isinstance(errors, list) else ""
        return " ".join(words.split())[:_MAX_SHOWN_CHARS]

    def fault(self, path: str, lacking: str = "") -> SignerError:
        """Return the error of a refused request. `lacking`: the permission that a 403 may point to."""
        words = "; ".join(part for part in (self.words, lacking if self.status == 403 else "") if part)
        text = f"Vault answered {self.status} to {path}{': ' if words else ''}{words}"
        wrong = 300 <= self.status < 412 or (self.status == 500 and any(word in self.words for word in _VERSION_WORDS))
        return SignerError(text, SignatureResult.WRONG if wrong else SignatureResult.AWAY, self.wait)


class VaultServer:
    """One Vault. Connections are kept, and follow their TLS files."""

    def __init__(self, settings: VaultKeySettings) -> None:
        self._address = settings.address
        self._headers = {"X-Vault-Request": "true"}
        if settings.namespace is not None:
            self._headers["X-Vault-Namespace"] = settings.namespace
        files = TlsFiles() if settings.tls is None else settings.tls.files()
        self._client = JsonClient(_BOUNDS, files, keep=_MAX_IDLE_CONNECTIONS)

    async def ask(
        self, method: str, path: str, token: str = "", body: Mapping[str, object] | None = None
    ) -> VaultAnswer:
        """Send one request. Raises SignerError if there is no answer."""
        headers = self._headers | ({"X-Vault-Token": token} if token else {})
        try:
            answer = await self._client.ask(
                method, f"{self._address}/v1/{path}", headers, within=TIMEOUT_SECONDS, json=body
            )
        except NoAnswer as fault:
            result = SignatureResult.WRONG if fault.lasting else SignatureResult.AWAY
            raise SignerError(f"{self._address}: {fault}", result) from None
        wait = read_retry_after(answer.headers.get("Retry-After"), answer.headers.get("Date"), time.time())
        return VaultAnswer(status=answer.status, content=answer.content, wait=wait)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    """`lease` in seconds from `since`; infinite if it does not end or its end is unknown. `first`: the first lease."""

    text: str = field(repr=False)
    obtained_at: float
    since: float
    lease: float
    first: float
    renewable: bool

    def is_stale(self, now: float) -> bool:
        return now >= self.since + RENEW_LEASE_SHARE * self.lease

    def is_expired(self, now: float) -> bool:
        return now >= self.since + self.lease


class VaultLogin:
    """Gets tokens and keeps the one in use. `clock` gives seconds of a steady clock."""

    def __init__(
        self, server: VaultServer, settings: VaultKeySettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._settings = settings
        self._clock = clock
        self._token: _Token | None = None
        self._retry_at = float("-inf")  # when a renewal that failed is tried again
        self._pending_token: asyncio.Task[_Token] | None = None

    async def token(self) -> str:
        """Return a token that has not ended, as far as is known. Raises SignerError."""
        token, now = self._token, self._clock()
        if token is None or token.is_expired(now):
            return (await asyncio.shield(self._start_reading(token))).text
        if token.is_stale(now) and now >= self._retry_at:
            self._start_reading(token)  # nobody waits for it
        return token.text

    def refused(self, text: str) -> bool:
        """Discard a token that Vault answered with 403. Return True if another token may be accepted."""
        token = self._token
        if token is None or token.text != text:  # another request was faster
            return True
        now, logs_in = self._clock(), self._settings.token_file is None
        if logs_in and now - token.obtained_at < NEW_TOKEN_SECONDS and not token.is_expired(now):
            return False
        self._token = None
        return True

    async def close(self) -> None:
        """Discard the token. In Vault it stays valid until its lease ends."""
        getting, self._pending_token, self._token = self._pending_token, None, None
        if getting is not None:
            getting.cancel()
            await asyncio.gather(getting, return_exceptions=True)

    def _start_reading(self, last: _Token | None) -> "asyncio.Task[_Token]":
        if self._pending_token is None:
            self._pending_token = asyncio.create_task(self._get(last))
            self._pending_token.add_done_callback(self._on_token)
        return self._pending_token

    def _on_token(self, task: "asyncio.Task[_Token]") -> None:
        if task.cancelled():
            return
        self._pending_token = None
        if task.exception() is None:
            self._token = task.result()
        elif self._token is not None:
            self._retry_at = self._clock() + max(1.0, RETRY_LEASE_SHARE * self._token.lease)

    async def _get(self, last: _Token | None) -> _Token:
        if last is not None and last.renewable and not last.is_expired(self._clock()):
            renewed = await self._renew(last)
            if renewed is not None:
                return renewed
        try:
            return await self._log_in()
        except SourceFault as fault:  # of a file
            raise SignerError(str(fault), SignatureResult.WRONG) from None

    async def _renew(self, last: _Token) -> _Token | None:
        """Return the token with a new lease; None if another token is needed."""
        at = self._clock()
        answer = await self._server.ask("POST", "auth/token/renew-self", last.text, {})
        lease = _lease(answer.content, "auth", "lease_duration") if answer.status == 200 else 0.0
        if lease < MIN_RENEWED_SHARE * last.first and (self._settings.token_file is None or not lease):
            return None
        return _Token(
            text=last.text, obtained_at=last.obtained_at, since=at, lease=lease, first=last.first, renewable=True
        )

    async def _log_in(self) -> _Token:
        settings, at = self._settings, self._clock()
        if settings.token_file is not None:
            return await self._look_up(secret_of("token_file", settings.token_file), at)
        if settings.approle is not None:
            role = settings.approle
            secret = secret_of("secret_id_file", role.secret_id_file)
            return await self._log_in_at(role.mount, {"role_id": role.role_id, "secret_id": secret}, at)
        assert settings.kubernetes is not None  # one of the three is given
        pod = settings.kubernetes
        return await self._log_in_at(pod.mount, {"role": pod.role, "jwt": secret_of("token_file", pod.token_file)}, at)

    async def _look_up(self, text: str, at: float) -> _Token:
        """Return the token of a file, with its lease if the token may look itself up."""
        answer = await self._server.ask("GET", "auth/token/lookup-self", text)
        if answer.status not in (200, 403):
            raise answer.fault("auth/token/lookup-self")
        lease = _lease(answer.content, "data", "ttl") or float("inf")  # 0: no end
        renewable = _member(answer.content, "data", "renewable") is True
        return _Token(text=text, obtained_at=at, since=at, lease=lease, first=lease, renewable=renewable)

    async def _log_in_at(self, mount: str, body: Mapping[str, object], at: float) -> _Token:
        path = f"auth/{mount}/login"
        answer = await self._server.ask("POST", path, "", body)
        text = _member(answer.content, "auth", "client_token")
        if answer.status != 200 or not isinstance(text, str) or not text.isprintable():
            raise _refusal(answer, path)
        lease = _lease(answer.content, "auth", "lease_duration") or float("inf")
        renewable = _member(answer.content, "auth", "renewable") is True
        return _Token(text=text, obtained_at=at, since=at, lease=lease, first=lease, renewable=renewable)


def _refusal(answer: VaultAnswer, path: str) -> SignerError:
    if answer.status == 200:
        return SignerError(
            f"Vault answered {path} without a token; is `address` that of a Vault?", SignatureResult.WRONG
        )
    return answer.fault(path)


def _member(content: object, part: str, name: str) -> object:
    inner = content.get(part) if isinstance(content, dict) else None
    return inner.get(name) if isinstance(inner, dict) else None


def _lease(content: object, part: str, name: str) -> float:
    member = _member(content, part, name)
    return float(member) if isinstance(member, int) and member > 0 else 0.0
