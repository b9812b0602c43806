"""Key files for the tests of signing keys: one ready key of each kind, made once a run, in any shape a test wants."""

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
    """The ready key for this algorithm."""
    return generate_key(Algorithm(kind))


def signing_kids(ring: KeyRing) -> dict[Algorithm, str]:
    """The `kid` of the key that signs now, by algorithm."""
    return {each.alg: each.public["kid"] for each in ring.current_keys(ISS)}


class Folder:
    """Key files in a directory of the test's own; each call writes one more."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def source(self, content: bytes | Mapping[str, object] | str, **more: object) -> KeySource:
        """A file with this content: bytes, a JWK, or the ready PEM of this algorithm."""
        path = self.path / f"{len(list(self.path.iterdir()))}.key"
        if isinstance(content, str):
            content = pem(content)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return KeySource(path=path, **more)  # type: ignore[arg-type]

    def ring(self, *sources: KeySource, now: float = NOW) -> KeyRing:
        return load_keys({ISS: sources}, clock=lambda: now)

    def joserfc(self, kind: str) -> Key:
        """The ready key of this algorithm as the other library reads it."""
        readers: dict[str, type[RSAKey | ECKey | OKPKey]] = {"RS": RSAKey, "ES": ECKey, "Ed": OKPKey}
        return readers[kind[:2]].import_key(pem(kind))

    def jwk(self, kind: str, **more: object) -> dict[str, object]:
        return {**self.joserfc(kind).as_dict(private=True), **more}
