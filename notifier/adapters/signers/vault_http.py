"""Requests to Vault, and what its refusals mean.

| status | |
|---|---|
| 400, 404, 405 | no such key, mount or role; a wrong secret id: somebody must correct it |
| 403 | no permission, and an expired token likewise: `vault_login` tells them apart |
| 412, 429, 5xx | a standby that is behind, a rate limit (which names no time), sealed (503), broken: it is away |
| 500 | a version that is too high or below the key's `min_encryption_version` too, told by its words |

A redirect is not followed, since it would take the token along: a standby that sends one is not the address to name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from notifier import __version__
from notifier.adapters.registries.web import connection_words
from notifier.adapters.signers.key_place import PlaceFault
from notifier.adapters.tls.client_contexts import TlsContexts
from notifier.domain.client import TlsFiles
from notifier.domain.errors import OurFault
from notifier.domain.signature import SignatureResult
from notifier.settings.vault_settings import VaultKeySettings

ANSWER_LIMIT = 1024 * 1024  # bytes; a key of a thousand versions is 0.6 MiB
WITHIN = 30.0  # seconds after which a request ends that nobody waits for any more
_SHOWN = 200  # characters of Vault's own words
_VERSION_WORDS = ("requested version", "minimum encryption")


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultAnswer:
    """An answer: its status, its JSON (None if it has none), and the seconds that it asks to wait."""

    status: int
    content: Any = field(repr=False)
    wait: float | None = None

    @property
    def words(self) -> str:
        """What Vault says is wrong, on one line. It repeats no token and no secret id."""
        errors = self.content.get("errors") if isinstance(self.content, dict) else None
        told = " ".join(str(each) for each in errors) if isinstance(errors, list) else ""
        return " ".join(told.split())[:_SHOWN]

    def fault(self, path: str, lacking: str = "") -> PlaceFault:
        """The refusal of a request. `lacking` says what may be lacking where it was a 403."""
        told = "; ".join(each for each in (self.words, lacking if self.status == 403 else "") if each)
        text = f"Vault answered {self.status} to {path}{': ' if told else ''}{told}"
        wrong = 300 <= self.status < 412 or (self.status == 500 and any(each in self.words for each in _VERSION_WORDS))
        return PlaceFault(text, SignatureResult.WRONG if wrong else SignatureResult.AWAY, self.wait)


class VaultServer:
    """One Vault. Connections are kept, and follow their TLS files."""

    def __init__(self, settings: VaultKeySettings) -> None:
        self._address = settings.address
        self._files = TlsFiles() if settings.tls is None else settings.tls.files()
        self._headers = {"User-Agent": f"notifier/{__version__}", "X-Vault-Request": "true"}
        if settings.namespace is not None:
            self._headers["X-Vault-Namespace"] = settings.namespace
        self._tls = TlsContexts()
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self, method: str, path: str, token: str = "", body: Mapping[str, object] | None = None
    ) -> VaultAnswer:
        """Ask once. Raises PlaceFault if there is no answer."""
        session = self._opened()
        url = f"{self._address}/v1/{path}"
        sent: dict[str, Any] = {"json": body, "headers": {"X-Vault-Token": token} if token else {}}
        try:
            tls: Any = await self._tls.context(self._files) if url.startswith("https") else True
            async with session.request(method, url, allow_redirects=False, ssl=tls, **sent) as found:
                raw = await _body(found)
                return VaultAnswer(status=found.status, content=_json(raw), wait=_seconds(found.headers))
        except OurFault as fault:
            raise PlaceFault(str(fault), SignatureResult.WRONG) from None
        except aiohttp.ClientError as error:
            wrong = isinstance(error, aiohttp.ClientConnectorCertificateError)
            result = SignatureResult.WRONG if wrong else SignatureResult.AWAY
            raise PlaceFault(f"{self._address}: {connection_words(error)}", result) from None
        except TimeoutError:
            raise PlaceFault(f"{self._address}: no answer within {WITHIN:g} s") from None

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        await self._tls.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver(), limit=0)
            limits = aiohttp.ClientTimeout(total=WITHIN)
            self._session = aiohttp.ClientSession(connector=connector, timeout=limits, headers=self._headers)
        return self._session


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    raw = b""
    async for part in answer.content.iter_any():
        raw += part
        if len(raw) > ANSWER_LIMIT:
            raise aiohttp.ClientPayloadError("too large")
    return raw


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return None


def _seconds(headers: Mapping[str, str]) -> float | None:
    told = headers.get("Retry-After", "")
    return float(told) if told.isascii() and told.isdigit() else None
