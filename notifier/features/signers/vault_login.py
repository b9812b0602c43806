"""Obtain the Vault token of a key: from a file, or by a log-in with an AppRole or a Kubernetes service account.

A token is renewed at half of its lease. Renewals grant shorter leases as the token approaches its maximum lifetime.
Then a log-in obtains another token. Vault answers 403 both to an expired or revoked token and for a missing policy. A
token that is not new is then discarded, and another is tried once. A new token is kept, since some secret IDs are valid
for a limited number of log-ins. All signatures that need a token wait for one task, which the timeout of a signature
does not cancel.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from notifier.features.signers.signer_settings import VaultKeySettings
from notifier.model.client import TlsFiles
from notifier.model.errors import SourceFault
from notifier.model.outcome import read_retry_after
from notifier.model.own_thread import FileTimeoutError, read_in_thread
from notifier.model.shared_resources import shared_bound, shared_task
from notifier.network.http.json_client import JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.settings.secret_text import secret_of
from notifier.tokens.signer import SignatureResult, SignerError

_BOUNDS = Bounds(answer=1024 * 1024, member=1024 * 1024)  # bytes; a key with 1,000 versions has 0.6 MiB
_MAX_IDLE_CONNECTIONS = shared_bound(256)
TIMEOUT_SECONDS = 30.0  # of a request; the caller's own limit is shorter
_MAX_SHOWN_CHARS = 200  # of Vault's error text
_VERSION_ERRORS = ("requested version", "minimum encryption")  # in a 500 for a key version that cannot sign
RENEW_LEASE_SHARE = 0.5  # of the lease: when the token is renewed
RETRY_LEASE_SHARE = 0.05  # of the lease: from a failed renewal to the next
MIN_RENEWED_SHARE = 0.7  # of the first lease: a shorter lease means that the maximum lifetime is near
NEW_TOKEN_SECONDS = 30.0  # a token that is refused within this time has not expired but lacks a policy


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultAnswer:
    """A response. `content`: its JSON; None without JSON. `wait`: the seconds of `Retry-After`."""

    status: int
    content: Any = field(repr=False)
    wait: float | None = None

    @property
    def error_text(self) -> str:
        """Return Vault's errors on one line. They contain neither tokens nor secret IDs."""
        errors = self.content.get("errors") if isinstance(self.content, dict) else None
        text = " ".join(str(error) for error in errors) if isinstance(errors, list) else ""
        return " ".join(text.split())[:_MAX_SHOWN_CHARS]

    def to_error(self, path: str, permission_hint: str = "") -> SignerError:
        """Return the error of a request that was not answered with 200. `permission_hint`: added to a 403."""
        hint = permission_hint if self.status == 403 else ""
        details = "; ".join(part for part in (self.error_text, hint) if part)
        text = f"Vault answered {self.status} to {path}" + (f": {details}" if details else "")
        is_version_error = self.status == 500 and any(error in self.error_text for error in _VERSION_ERRORS)
        is_permanent = 300 <= self.status < 412 or is_version_error  # 412: this server has not replicated data yet
        return SignerError(text, SignatureResult.WRONG if is_permanent else SignatureResult.AWAY, self.wait)


class VaultServer:
    """Sends requests to a Vault over reused connections. Changed TLS files apply to new connections."""

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
        """Send one request. Raises SignerError without a response."""
        headers = {**self._headers, "X-Vault-Token": token} if token else self._headers
        url = f"{self._address}/v1/{path}"
        try:
            answer = await self._client.ask(method, url, headers, within=TIMEOUT_SECONDS, json=body)
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
    """A token with a lease, which began at `leased_at`. Times are monotonic seconds.

    `lease`: infinite if the token does not expire, or its expiry is unknown. `first_lease`: before any renewal.
    """

    text: str = field(repr=False)
    obtained_at: float
    leased_at: float
    lease: float
    first_lease: float
    renewable: bool

    def is_stale(self, now: float) -> bool:
        return now >= self.leased_at + RENEW_LEASE_SHARE * self.lease

    def is_expired(self, now: float) -> bool:
        return now >= self.leased_at + self.lease


class VaultLogin:
    """Obtains tokens and keeps the current one. `monotonic` is a clock that never jumps."""

    def __init__(
        self, server: VaultServer, settings: VaultKeySettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._settings = settings
        self._monotonic = monotonic
        self._token: _Token | None = None
        self._retry_at = float("-inf")  # of a failed renewal
        self._token_task: asyncio.Task[_Token] | None = None

    async def token(self) -> str:
        """Return a token that has not expired, as far as is known. Raises SignerError."""
        token, now = self._token, self._monotonic()
        if token is None or token.is_expired(now):
            return (await asyncio.shield(self._start_obtaining(token))).text
        if token.is_stale(now) and now >= self._retry_at:
            self._start_obtaining(token)  # in the background
        return token.text

    def on_refused(self, text: str) -> bool:
        """Discard a token for which Vault answered 403. Return whether another token may be accepted."""
        token = self._token
        if token is None or token.text != text:  # another request has discarded the token
            return True
        now, logs_in = self._monotonic(), self._settings.token_file is None
        is_new = now - token.obtained_at < NEW_TOKEN_SECONDS and not token.is_expired(now)
        if logs_in and is_new:
            return False
        self._token = None
        return True

    async def close(self) -> None:
        """Discard the token. In Vault it stays valid until its lease ends."""
        task, self._token_task, self._token = self._token_task, None, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _start_obtaining(self, last: _Token | None) -> "asyncio.Task[_Token]":
        """Return the running task that obtains a token. Start it if none runs."""
        if self._token_task is None:
            self._token_task = shared_task(self._obtain(last))
            self._token_task.add_done_callback(self._on_token)
        return self._token_task

    def _on_token(self, task: "asyncio.Task[_Token]") -> None:
        """Keep the obtained token, or after a failure set the time of the next renewal."""
        if task.cancelled():
            return
        self._token_task = None
        if task.exception() is None:
            self._token = task.result()
        elif self._token is not None:
            self._retry_at = self._monotonic() + max(1.0, RETRY_LEASE_SHARE * self._token.lease)

    async def _obtain(self, last: _Token | None) -> _Token:
        """Return the last token with a new lease, or another token. Raises SignerError."""
        if last is not None and last.renewable and not last.is_expired(self._monotonic()):
            renewed = await self._renew(last)
            if renewed is not None:
                return renewed
        try:
            return await self._log_in()
        except SourceFault as fault:  # a file cannot be read
            raise SignerError(str(fault), SignatureResult.WRONG) from None
        except FileTimeoutError as error:
            raise SignerError(str(error), SignatureResult.AWAY) from None

    async def _renew(self, last: _Token) -> _Token | None:
        """Return the token with a new lease; None if another token is needed."""
        now = self._monotonic()
        answer = await self._server.ask("POST", "auth/token/renew-self", last.text, {})
        lease = _find_lease(answer.content, "auth", "lease_duration") if answer.status == 200 else 0.0
        # A token of a file is kept to the end of its last lease, as the file may still have the same token.
        if lease < MIN_RENEWED_SHARE * last.first_lease and (self._settings.token_file is None or not lease):
            return None
        return replace(last, leased_at=now, lease=lease)

    async def _log_in(self) -> _Token:
        """Return another token, by the only configured way. Raises SignerError, SourceFault or FileTimeoutError."""
        settings = self._settings
        if settings.token_file is not None:
            return await self._look_up(await _read_secret("token_file", settings.token_file))
        if settings.approle is not None:
            role = settings.approle
            secret = await _read_secret("secret_id_file", role.secret_id_file)
            return await self._log_in_at(role.mount, {"role_id": role.role_id, "secret_id": secret})
        assert settings.kubernetes is not None, "the settings require one of the three"
        pod = settings.kubernetes
        jwt = await _read_secret("token_file", pod.token_file)
        return await self._log_in_at(pod.mount, {"role": pod.role, "jwt": jwt})

    async def _look_up(self, text: str) -> _Token:
        """Return the token of a file. Its lease is unknown if it lacks the permission to look itself up (403)."""
        now = self._monotonic()
        answer = await self._server.ask("GET", "auth/token/lookup-self", text)
        if answer.status not in (200, 403):
            raise answer.to_error("auth/token/lookup-self")
        lease = _find_lease(answer.content, "data", "ttl") or float("inf")  # 0: the token does not expire
        renewable = _find_member(answer.content, "data", "renewable") is True
        return _Token(text=text, obtained_at=now, leased_at=now, lease=lease, first_lease=lease, renewable=renewable)

    async def _log_in_at(self, mount: str, body: Mapping[str, object]) -> _Token:
        """Return the token that an authentication method of Vault issues. Raises SignerError."""
        now, path = self._monotonic(), f"auth/{mount}/login"
        answer = await self._server.ask("POST", path, "", body)
        if answer.status != 200:
            raise answer.to_error(path)
        text = _find_member(answer.content, "auth", "client_token")
        if not isinstance(text, str) or not text.isprintable():
            error = f"Vault answered {path} without a token; is `address` that of a Vault?"
            raise SignerError(error, SignatureResult.WRONG)
        lease = _find_lease(answer.content, "auth", "lease_duration") or float("inf")
        renewable = _find_member(answer.content, "auth", "renewable") is True
        return _Token(text=text, obtained_at=now, leased_at=now, lease=lease, first_lease=lease, renewable=renewable)


async def _read_secret(setting: str, path: Path) -> str:
    return await read_in_thread(str(path), partial(secret_of, setting, path))


def _find_member(content: object, section: str, name: str) -> object:
    members = content.get(section) if isinstance(content, dict) else None
    return members.get(name) if isinstance(members, dict) else None


def _find_lease(content: object, section: str, name: str) -> float:
    """Return the seconds of a lease; 0.0 without a lease."""
    seconds = _find_member(content, section, name)
    return float(seconds) if isinstance(seconds, int) and seconds > 0 else 0.0
