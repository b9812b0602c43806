"""Joins the JWK Set of a relayed identity server with notifier's keys of the same issuer.

Clients of the issuer verify with the joined set, ID tokens too. So a key of notifier never replaces or hides one of the
server's: it is left out instead, and clients then refuse notifier's tokens, not the server's. Nothing of a set is
served unless all of it can be: a set without one of the server's keys would break sign-ins.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from notifier.model.client import Algorithm, PublishedKey
from notifier.model.record import record
from notifier.network.http.json_parts import OutOfBounds
from notifier.tokens.foreign_keys import (
    find_verifying_fault,
    list_verified_algorithms,
    read_jwks,
    to_published_key,
)
from notifier.tokens.published_keys import Signing, find_publication_faults

LOOP_TEXT = "leads to notifier itself; it must be the server's own address"
RELAY_MEMBER = {"relay": "notifier"}
"""The member of a joined set by which notifier recognises its own answer as that, and not the server's."""
_PRIVATE_NAMES = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "seed"})  # RFC 7518 §6, and of AKP keys
_PRIVATE_PARTS = ("priv", "secret")  # as in `priv` (AKP) and `privateKey`
_SYMMETRIC_TYPE = "oct"  # a key without a public half

Jwk = Mapping[str, Any]
GetOwnJwks = Callable[[], Sequence[Mapping[str, str]]]
"""Returns notifier's public keys of the issuer."""


@record
class ServerSet:
    """The keys of a server. `passed_on`: as clients get them. `published`: as they verify tokens.

    `has_secrets`: the set has private members or symmetric keys, which are not passed on.
    """

    passed_on: tuple[Jwk, ...]
    published: tuple[PublishedKey, ...]
    has_secrets: bool


@record
class JoinedSet:
    """A joined JWK Set. `body`: its JSON. `left_out`: for each `kid` of notifier that clients cannot use, the reason.

    `added`: the number of notifier's keys in it that the server's set does not have.
    """

    body: bytes
    left_out: Mapping[str, str]
    added: int


def is_joined_set(document: object) -> bool:
    """Return whether the document is a joined set, so that its address leads to notifier, not to the server."""
    return isinstance(document, Mapping) and document.get("relay") == RELAY_MEMBER["relay"]


def read_server_set(document: Any) -> ServerSet | str:
    """Return the public keys of a JWK Set, or why none of it may be served, as a text that begins with a verb.

    The text is LOOP_TEXT for a joined set. Keys of unknown types are passed on, with all public members that are
    texts, lists of texts, booleans or integers.
    """
    if is_joined_set(document):
        return LOOP_TEXT
    published = read_jwks(document)
    if isinstance(published, str):
        return published
    lost = next((key for key in document["keys"] if isinstance(key, OutOfBounds)), None)
    if lost is not None:
        return f"has a key that {lost.text}"
    jwks = [key for key in document["keys"] if isinstance(key, dict)]
    passed_on = tuple(_pass_on(jwk) for jwk in jwks if jwk.get("kty") != _SYMMETRIC_TYPE)
    if not passed_on:
        return "has no public key"
    verifying = tuple(key for key in published if key.kty != _SYMMETRIC_TYPE)
    return ServerSet(passed_on=passed_on, published=verifying, has_secrets=any(map(_has_secrets, jwks)))


def _is_private(name: str) -> bool:
    lower = name.lower()
    return lower in _PRIVATE_NAMES or any(part in lower for part in _PRIVATE_PARTS)


def _has_secrets(jwk: Jwk) -> bool:
    is_symmetric = jwk.get("kty") == _SYMMETRIC_TYPE
    return is_symmetric or any(_is_private(name) and value not in (None, "", []) for name, value in jwk.items())


def _pass_on(jwk: Jwk) -> Jwk:
    return {name: value for name, value in jwk.items() if not _is_private(name) and _is_plain(value)}


def _is_plain(value: object) -> bool:
    """Return whether a member can be served unchanged. A float may be infinite (`1e999`), an object hide a secret."""
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, str | int)  # a boolean is an integer


def join_keys(server: ServerSet, own: Sequence[Mapping[str, str]]) -> JoinedSet:
    """Return the server's keys, then notifier's `own` public keys that confuse no receiver of the server's tokens."""
    server_kids = {key.kid for key in server.published}
    nameless = {alg for key in server.published if key.kid is None for alg in _algorithms_of(key)}
    signing: list[Signing] = []
    left_out: dict[str, str] = {}
    added: list[Mapping[str, str]] = []
    for jwk in own:
        kid, algorithms = jwk["kid"], _algorithms_of(to_published_key(jwk))
        confused = [alg for alg in algorithms if alg in nameless]
        if kid in server_kids:
            signing += [Signing(alg=Algorithm(alg), public=jwk) for alg in algorithms]
        elif confused:
            # Tokens by that key name none. With two keys for an algorithm, receivers do not know which to use.
            left_out[kid] = f"the server has a key without kid for {confused[0]}: give notifier a key of another type"
        else:
            added.append(jwk)
    faults = find_publication_faults(signing, server.published)
    left_out |= {kid: fault for kid, fault in faults.items() if fault is not None}
    document = {"keys": [*server.passed_on, *added], **RELAY_MEMBER}
    return JoinedSet(body=json.dumps(document).encode(), left_out=left_out, added=len(added))


def _algorithms_of(key: PublishedKey) -> Sequence[str]:
    return () if find_verifying_fault(key) is not None else list_verified_algorithms(key)
