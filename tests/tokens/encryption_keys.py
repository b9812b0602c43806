"""Keys of clients with encrypted tokens, as such a client has them: by jwcrypto, a different library than ours."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from notifier.model.client import ContentEncryption, KeyManagement, PublishedKey
from notifier.tokens.foreign_keys import read_jwks

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("jwe_vectors.json").read_text("utf-8"))
"""Published tokens with their keys: RFC 7516 appendix A.1, RFC 7520 §5.2, §5.4, §5.5."""

_ALLOWED = [*map(str, KeyManagement), *map(str, ContentEncryption)]


@cache
def made(kind: str) -> JWK:
    """Return a cached key of a kind: `RSA`, or a curve."""
    if kind == "RSA":
        return JWK.generate(kty="RSA", size=2048)
    return JWK.generate(kty="OKP" if kind.startswith("X") else "EC", crv=kind)


def public(key: JWK, **more: object) -> dict[str, Any]:
    """Return the key as its client publishes it."""
    return {**key.export_public(as_dict=True), **more}


def keys(*jwks: dict[str, Any]) -> tuple[PublishedKey, ...]:
    """Return the keys as notifier reads them."""
    found = read_jwks({"keys": list(jwks)})
    assert not isinstance(found, str)
    return found


def opened(token: str, key: JWK) -> tuple[dict[str, Any], str]:
    """Return header and content of a JWE for its client. Raise InvalidJWEData."""
    found = JWE(algs=_ALLOWED)
    found.deserialize(token, key)
    return dict(found.jose_header), found.payload.decode()
