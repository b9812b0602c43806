"""The signer `vault`: sign with a key in the transit engine of Vault, or of OpenBao, which has the same API.

`GET MOUNT/keys/KEY` returns the public keys by version: Ed25519 as base64, others as PEM. `POST MOUNT/sign/KEY/HASH`
signs. Its body sets each member whose default would be wrong: `key_version` (default: the newest), `prehashed` with the
digest as `input`, `marshaling_algorithm: jws` (r‖s for ECDSA), `signature_algorithm` for RSA (default: PSS), and
`salt_length: hash` for PSS (default: the longest possible). With Ed25519, `input` is the message, not a digest.
"""

import base64
import binascii
import hashlib
import time
from collections.abc import Callable, Mapping
from datetime import datetime
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

_PADDING: Mapping[str, Mapping[str, str]] = {
    "RS": {"signature_algorithm": "pkcs1v15"},
    "PS": {"signature_algorithm": "pss", "salt_length": "hash"},
}


class VaultKey:
    """One version of a key. Satisfies `SignerBackend`. `monotonic` is a clock that never jumps."""

    def __init__(self, settings: VaultKeySettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._mount, self._key, self._version = settings.mount, settings.key, settings.version
        self._server = VaultServer(settings)
        self._login = VaultLogin(self._server, settings, monotonic)
        self._permission_hint = (
            f"its token has ended, or has no policy with read on {self._mount}/keys/{self._key} "
            f"and update on {self._mount}/sign/{self._key}/*"
        )

    async def public(self) -> PublicHalf:
        """Return the public key of the version, and when it was made. Raises SignerError."""
        data = await self._request("GET", f"{self._mount}/keys/{self._key}")
        versions = data.get("keys")
        if not isinstance(versions, dict) or not data.get("supports_signing"):
            kind = data.get("type", "of an unknown type")
            raise _wrong_key_error(
                f"the key {self._key} is {kind}, which does not sign: RSA, ECDSA or Ed25519 is needed"
            )
        version = versions.get(str(self._version))
        if not isinstance(version, dict):
            existing = f"its versions are {', '.join(versions)}" if versions else "it has none"
            raise _wrong_key_error(f"the key {self._key} has no version {self._version}: {existing}")
        made_at = _parse_time(version.get("creation_time"))
        return PublicHalf(key=_parse_public_key(version.get("public_key")), made_at=made_at)

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Return the signature of a message in the form of JWS. Raises SignerError."""
        hash_bits = "256" if alg in ED25519_NAMES else alg[-3:]  # Ed25519 ignores it
        path = f"{self._mount}/sign/{self._key}/sha2-{hash_bits}"
        answer = await self._request("POST", path, self._build_body(alg, message))
        prefix, _, signature = str(answer.get("signature", "")).rpartition(":")
        if prefix != f"vault:v{self._version}":
            raise SignerError(f"Vault signed by {prefix or 'nothing'} where version {self._version} was asked for")
        return _decode_base64(signature)

    async def close(self) -> None:
        """Close the connections, and discard the token."""
        await self._login.close()
        await self._server.close()

    def _build_body(self, alg: Algorithm, message: bytes) -> Mapping[str, object]:
        common = {"key_version": self._version, "marshaling_algorithm": "jws"}
        if alg in ED25519_NAMES:
            return {**common, "input": _encode_base64(message)}
        digest = hashlib.new(f"sha{alg[-3:]}", message).digest()
        return {**common, "input": _encode_base64(digest), "prehashed": True, **_PADDING.get(alg[:2], {})}

    async def _request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return the member `data` of a response. If the token may have expired, try once more. Raises SignerError."""
        path = quote(path)
        token = await self._login.token()
        answer = await self._server.ask(method, path, token, body)
        may_have_expired = answer.status == 403 and self._login.on_refused(token)
        if may_have_expired:
            token = await self._login.token()
            answer = await self._server.ask(method, path, token, body)
        if answer.status != 200:
            raise answer.to_error(path, self._permission_hint)
        data = answer.content.get("data") if isinstance(answer.content, dict) else None
        if not isinstance(data, dict):
            raise _wrong_key_error("the answer is none of Vault's; is `address` that of a Vault?")
        return data


def _wrong_key_error(text: str) -> SignerError:
    return SignerError(text, SignatureResult.WRONG)


def _parse_public_key(text: object) -> PublicKey:
    """Return the public key in PEM, or for Ed25519 in base64. Raises SignerError."""
    if not isinstance(text, str) or not text:
        raise _wrong_key_error("Vault returns no public half of this key")
    try:
        if text.startswith("-----BEGIN"):
            return load_pem_public_key(text.encode())  # type: ignore[return-value]  # the caller refuses other types
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        raise _wrong_key_error("the public half from Vault cannot be read") from None


def _parse_time(text: object) -> float | None:
    """Return epoch seconds; None without a valid time."""
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except ValueError:
        return None


def _encode_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode_base64(text: str) -> bytes:
    """Decode base64, URL-safe or not, padded or not, since versions of Vault differ. Raises SignerError."""
    bare = text.rstrip("=").replace("+", "-").replace("/", "_")
    try:
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except (ValueError, binascii.Error):
        raise SignerError("Vault answered with a signature that is not valid base64") from None
