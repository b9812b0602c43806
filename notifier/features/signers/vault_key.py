"""Signs with a key in the transit engine of Vault (or OpenBao, which has the same interface).

| request | required members |
|---|---|
| `GET MOUNT/keys/KEY` | the public halves by version; Ed25519's is bare base64, the others PEM |
| `POST MOUNT/sign/KEY/sha2-256` | `key_version`, or the newest signs; `prehashed`, with the digest as `input`; |
| | `marshaling_algorithm: jws`: r‖s for ECDSA; for RSA `signature_algorithm`, or it is PSS; |
| | for PSS `salt_length: hash`, or the salt is the longest possible |

Ed25519 gets the whole message: it would sign a digest as if that were the message.
"""

import base64
import binascii
import hashlib
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from notifier.features.signers.signer_settings import VaultKeySettings
from notifier.features.signers.vault_login import VaultLogin, VaultServer
from notifier.model.client import ED25519_NAMES, Algorithm
from notifier.tokens.jws import PublicKey
from notifier.tokens.signer import PublicHalf, SignatureResult, SignerError

_PADDING: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {"RS": {"signature_algorithm": "pkcs1v15"}, "PS": {"signature_algorithm": "pss", "salt_length": "hash"}}
)


class VaultKey:
    """One version of a key. `clock` gives seconds of a steady clock."""

    def __init__(self, settings: VaultKeySettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._mount, self._key, self._version = settings.mount, settings.key, settings.version
        self._server = VaultServer(settings)
        self._login = VaultLogin(self._server, settings, clock)
        self._lacking = (
            f"its token has ended, or has no policy with read on {self._mount}/keys/{self._key} "
            f"and update on {self._mount}/sign/{self._key}/*"
        )

    async def public(self) -> PublicHalf:
        """Fetch the public half. Raises SignerError."""
        data = await self._request("GET", f"{self._mount}/keys/{self._key}")
        versions = data.get("keys")
        if not isinstance(versions, dict) or not data.get("supports_signing"):
            kind = data.get("type", "of an unknown type")
            raise _wrong_key_error(
                f"the key {self._key} is {kind}, which does not sign: RSA, ECDSA or Ed25519 is needed"
            )
        version = versions.get(str(self._version))
        if not isinstance(version, dict):
            there = f"its versions are {', '.join(versions)}" if versions else "it has none"
            raise _wrong_key_error(f"the key {self._key} has no version {self._version}: {there}")
        return PublicHalf(key=_public_key(version.get("public_key")), made_at=_moment(version.get("creation_time")))

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Sign the bytes, and return the signature as JWS has it. Raises SignerError."""
        size = "256" if alg in ED25519_NAMES else alg[-3:]
        answer = await self._request(
            "POST", f"{self._mount}/sign/{self._key}/sha2-{size}", self._signing_body(alg, message)
        )
        prefix, _, signature = str(answer.get("signature", "")).rpartition(":")
        if prefix != f"vault:v{self._version}":
            raise SignerError(f"Vault signed by {prefix or 'nothing'} where version {self._version} was asked for")
        return _decoded(signature)

    async def close(self) -> None:
        """Close its connections."""
        await self._login.close()
        await self._server.close()

    def _signing_body(self, alg: Algorithm, message: bytes) -> Mapping[str, object]:
        common = {"key_version": self._version, "marshaling_algorithm": "jws"}
        if alg in ED25519_NAMES:
            return {**common, "input": _encoded(message)}
        digest = hashlib.new(f"sha{alg[-3:]}", message).digest()
        return {**common, "input": _encoded(digest), "prehashed": True, **_PADDING.get(alg[:2], {})}

    async def _request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return the answer's data. If the token may have ended, try once with another token."""
        path = quote(path)
        token = await self._login.token()
        answer = await self._server.ask(method, path, token, body)
        if answer.status == 403 and self._login.refused(token):
            again = await self._login.token()
            answer = await self._server.ask(method, path, again, body)
        if answer.status != 200:
            raise answer.fault(path, self._lacking)
        data = answer.content.get("data") if isinstance(answer.content, dict) else None
        if not isinstance(data, dict):
            raise _wrong_key_error("the answer is none of Vault's; is `address` that of a Vault?")
        return data


def _wrong_key_error(text: str) -> SignerError:
    return SignerError(text, SignatureResult.WRONG)


def _public_key(text: object) -> PublicKey:
    if not isinstance(text, str) or not text:
        raise _wrong_key_error("Vault returns no public half of this key")
    try:
        if text.startswith("-----BEGIN"):
            return load_pem_public_key(text.encode())  # type: ignore[return-value]  # the frame judges its kind
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        raise _wrong_key_error("the public half from Vault cannot be read") from None


def _moment(text: object) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except ValueError:
        return None


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decoded(text: str) -> bytes:
    """Decode base64, URL-safe or not, padded or not: it depends on the marshaling and the version."""
    bare = text.rstrip("=").replace("+", "-").replace("/", "_")
    try:
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except (ValueError, binascii.Error):
        raise SignerError("Vault answered with a signature that is not valid base64") from None
