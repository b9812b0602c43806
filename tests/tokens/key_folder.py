"""Key files for the tests of signing keys: one cached key of each kind, in any shape."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from notifier.model.client import Algorithm
from notifier.tokens.key_files import KeySource, generate_key, load_keys
from notifier.tokens.key_ring import KeyRing

ISS, OTHER = "https://id.example.com", "https://login.example.org"
NOW = 1_750_000_000.5
KINDS = ("RS256", "ES256", "ES384", "ES512", "EdDSA")


@functools.cache
def pem(kind: str) -> bytes:
    """Return the cached key for this algorithm."""
    return generate_key(Algorithm(kind))


def signing_kids(ring: KeyRing) -> dict[Algorithm, str]:
    """Return the `kid` of the current signing key by algorithm."""
    return {each.alg: each.public["kid"] for each in ring.current_keys(ISS)}


class Folder:
    """Key files in a temporary directory; each call writes one more."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def source(self, content: bytes | Mapping[str, object] | str, **more: object) -> KeySource:
        """Write a file with this content: bytes, a JWK, or the cached PEM of this algorithm."""
        path = self.path / f"{len(list(self.path.iterdir()))}.key"
        if isinstance(content, str):
            content = pem(content)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return KeySource(path=path, **more)  # type: ignore[arg-type]

    def ring(self, *sources: KeySource, now: float = NOW) -> KeyRing:
        return load_keys({ISS: sources}, clock=lambda: now)

    def joserfc(self, kind: str) -> Key:
        """Return the cached key of this algorithm for joserfc."""
        readers: dict[str, type[RSAKey | ECKey | OKPKey]] = {"RS": RSAKey, "ES": ECKey, "Ed": OKPKey}
        return readers[kind[:2]].import_key(pem(kind))

    def jwk(self, kind: str, **more: object) -> dict[str, object]:
        return {**self.joserfc(kind).as_dict(private=True), **more}
