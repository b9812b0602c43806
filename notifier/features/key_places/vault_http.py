"""Sends requests to Vault, and explains its refusals.

| status | |
|---|---|
| 400, 404, 405 | no such key, mount or role; a wrong secret id: somebody must correct it |
| 403 | no permission, and an expired token likewise: `vault_login` tells them apart |
| 412, 429, 5xx | a standby that is behind, a rate limit (which names no time), sealed (503), broken: it is away |
| 500 | a version that is too high or below the key's `min_encryption_version` too, told by its words |

Redirects are not followed, since they would take the token along: a standby that redirects is not the address to name.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from notifier.features.key_places.vault_settings import VaultKeySettings
from notifier.model.client import TlsFiles
from notifier.model.outcome import read_retry_after
from notifier.network.http.json_client import JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.tokens.key_place import PlaceFault, SignatureResult

_BOUNDS = Bounds(answer=1024 * 1024, member=1024 * 1024)  # bytes; a key of a thousand versions is 0.6 MiB
_KEPT = 256  # connections
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
        """Return what Vault says is wrong, on one line. It repeats no token and no secret id."""
        errors = self.content.get("errors") if isinstance(self.content, dict) else None
        words = " ".join(str(text) for text in errors) if isinstance(errors, list) else ""
        return " ".join(words.split())[:_SHOWN]

    def fault(self, path: str, lacking: str = "") -> PlaceFault:
        """The refusal of a request. `lacking` says what may be lacking where it was a 403."""
        words = "; ".join(part for part in (self.words, lacking if self.status == 403 else "") if part)
        text = f"Vault answered {self.status} to {path}{': ' if words else ''}{words}"
        wrong = 300 <= self.status < 412 or (self.status == 500 and any(word in self.words for word in _VERSION_WORDS))
        return PlaceFault(text, SignatureResult.WRONG if wrong else SignatureResult.AWAY, self.wait)


class VaultServer:
    """One Vault. Connections are kept, and follow their TLS files."""

    def __init__(self, settings: VaultKeySettings) -> None:
        self._address = settings.address
        self._headers = {"X-Vault-Request": "true"}
        if settings.namespace is not None:
            self._headers["X-Vault-Namespace"] = settings.namespace
        files = TlsFiles() if settings.tls is None else settings.tls.files()
        self._client = JsonClient(_BOUNDS, files, keep=_KEPT)

    async def ask(
        self, method: str, path: str, token: str = "", body: Mapping[str, object] | None = None
    ) -> VaultAnswer:
        """Ask once. Raises PlaceFault if there is no answer."""
        headers = self._headers | ({"X-Vault-Token": token} if token else {})
        try:
            answer = await self._client.ask(method, f"{self._address}/v1/{path}", headers, within=WITHIN, json=body)
        except NoAnswer as fault:
            result = SignatureResult.WRONG if fault.lasting else SignatureResult.AWAY
            raise PlaceFault(f"{self._address}: {fault}", result) from None
        wait = read_retry_after(answer.headers.get("Retry-After"), answer.headers.get("Date"), time.time())
        return VaultAnswer(status=answer.status, content=answer.content, wait=wait)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()
