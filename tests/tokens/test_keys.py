"""Test signing: a different library verifies signatures, and the current key signs."""

import base64
import json
from base64 import urlsafe_b64decode

import jwt
import pytest

from notifier.model.client import Algorithm, Client, TokenProfile
from notifier.model.delivery import Delivery
from notifier.model.errors import InternalFault
from notifier.model.logout_token import Claims, build_claims
from notifier.model.outcome import Cause
from notifier.tokens.jws import compact_signer
from notifier.tokens.key_files import generate_key, load_keys
from tests.support.verifier import verify
from tests.tokens.key_folder import ISS, KINDS, NOW, OTHER, Folder, signing_kids
from tests.tokens.memory_place import private


def claims(iss: str = ISS, profile: TokenProfile | None = None) -> Claims:
    delivery = Delivery(id="d", event_id="e", id_given=True, iss=iss, client_id="shop", sub="alice", sid="s-1")
    client = Client(iss=iss, client_id="shop", backchannel_logout_uri=None, token=profile or TokenProfile())
    made = build_claims(delivery, client, now=NOW, jti="j-1")
    assert isinstance(made, dict)
    return made


def kid_of(token: str) -> str:
    head = token.split(".", maxsplit=1)[0]
    return str(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


async def test_every_algorithm_verifies_elsewhere(folder: Folder) -> None:
    """B16, B18, B23, R1, R7: ten algorithms, each `typ` or none, pass a strict verifier of another library."""
    ring = folder.ring(*(folder.source(kind) for kind in KINDS))
    for alg in Algorithm:
        for typ in ("logout+jwt", "JWT", None):
            token = await ring.sign(ISS, alg, typ, claims())
            assert verify(token, ring.jwks(ISS), iss=ISS, aud="shop", now=NOW, typ=typ, algs=[alg]) == claims(), alg


async def test_jwk_with_alg_signs_only_by_it(folder: Folder) -> None:
    """An RSA key supports six algorithms; its `alg` selects one, and only then the JWKS contains it."""
    assert folder.ring(folder.source("RS256")).algorithms_of(ISS) == {a for a in Algorithm if a[:2] in ("RS", "PS")}
    assert "alg" not in folder.ring(folder.source("RS256")).jwks(ISS)["keys"][0]
    ring = folder.ring(folder.source(folder.jwk("RS256", alg="PS384")))
    assert ring.algorithms_of(ISS) == {Algorithm.PS384}
    assert ring.jwks(ISS)["keys"][0]["alg"] == "PS384"
    with pytest.raises(InternalFault, match="has no key for RS256"):
        await ring.sign(ISS, Algorithm.RS256, None, claims())


@pytest.mark.parametrize(
    ("now", "kid"),
    [(NOW, "always"), (NOW + 99, "always"), (NOW + 100, "next"), (NOW + 200, "last"), (NOW + 1e6, "last")],
)
async def test_key_rolls_over_at_not_before(folder: Folder, now: float, kid: str) -> None:
    """Of the suitable keys, the one with the latest `not_before` that has passed signs, in any order."""
    ring = folder.ring(
        folder.source(generate_key(Algorithm.ES256), kid="last", not_before=NOW + 200),
        folder.source(generate_key(Algorithm.ES256), kid="always"),
        folder.source(generate_key(Algorithm.ES384), kid="other", not_before=NOW + 50),
        folder.source(generate_key(Algorithm.ES256), kid="next", not_before=NOW + 100),
        now=now,
    )
    token = await ring.sign(ISS, Algorithm.ES256, "logout+jwt", claims())
    assert kid_of(token) == kid == signing_kids(ring)[Algorithm.ES256]
    assert verify(token, ring.jwks(ISS), iss=ISS, aud="shop", now=NOW)
    assert ring.kids(ISS) == ("last", "always", "other", "next")


def test_first_of_two_equal_keys_signs(folder: Folder) -> None:
    """If `not_before` is equal, the order of the configuration decides."""
    ring = folder.ring(*(folder.source(generate_key(Algorithm.ES256), kid=kid) for kid in ("one", "two")))
    assert signing_kids(ring) == {Algorithm.ES256: "one"}


async def test_key_before_not_before_defers(folder: Folder) -> None:
    """Until then the delivery is deferred (`signing`) with the time; the algorithm counts as available."""
    ring = folder.ring(folder.source("ES256", not_before=NOW + 60))
    with pytest.raises(InternalFault, match=r"due before 2025-06-15 15:07:40Z") as caught:
        await ring.sign(ISS, Algorithm.ES256, None, claims())
    assert caught.value.cause is Cause.SIGNING
    assert ring.algorithms_of(ISS) == {Algorithm.ES256}
    assert signing_kids(ring) == {}


async def test_issuers_are_tenants(folder: Folder) -> None:
    """An issuer signs only with its own keys, even if the `kid` or the file is the same; an unknown one with none."""
    ring = load_keys(
        {
            ISS: [folder.source("ES256", kid="k")],
            OTHER: [folder.source(generate_key(Algorithm.ES256), kid="k"), folder.source("RS256")],
        },
        clock=lambda: NOW,
    )
    token = await ring.sign(OTHER, Algorithm.ES256, "logout+jwt", claims(OTHER))
    assert verify(token, ring.jwks(OTHER), iss=OTHER, aud="shop", now=NOW)
    with pytest.raises(AssertionError, match="signature"):
        verify(token, ring.jwks(ISS), iss=OTHER, aud="shop", now=NOW)
    for iss in (ISS, "https://nobody.example"):
        with pytest.raises(InternalFault) as caught:
            await ring.sign(iss, Algorithm.RS256, None, claims(iss))
        assert caught.value.cause is Cause.SIGNING
    assert (ring.kids("https://nobody.example"), ring.jwks("https://nobody.example")) == ((), {"keys": []})
    assert ring.algorithms_of("https://nobody.example") == frozenset()


async def test_claims_that_are_not_json_defer(folder: Folder) -> None:
    """A claim that JSON cannot express defers the delivery, and the error does not repeat it."""
    with pytest.raises(InternalFault, match="TypeError") as caught:
        await folder.ring(folder.source("ES256")).sign(
            ISS, Algorithm.ES256, None, claims() | {"secret": [object(), "hidden"]}
        )
    assert "hidden" not in str(caught.value)


def test_nothing_private_is_shown(folder: Folder) -> None:
    """Neither a ring, its JWKS nor a repr contains a private number."""
    ring = folder.ring(*(folder.source(kind) for kind in KINDS))
    private_members = {"d", "p", "q", "dp", "dq", "qi"}
    assert not any(private_members & set(jwk) for jwk in ring.jwks(ISS)["keys"])
    shown = repr(ring) + repr(ring._keys) + json.dumps(ring.jwks(ISS))
    for kind in KINDS:
        assert str(folder.jwk(kind)["d"]) not in shown
    assert "PrivateKey" not in shown


# ── A strict receiver verifies the tokens, for any algorithm, header and claims ──────────────────────────────────────


def test_a_signature_whose_halves_begin_with_zeros_verifies() -> None:
    """B18, R1: repeated, since one signature in 128 does; `test_keys` has each algorithm once."""
    key = private("ES256")
    sign = compact_signer(key, Algorithm.ES256, "k1", "logout+jwt")
    for number in range(600):
        verified = jwt.decode_complete(sign({"sub": "alice", "n": number}), key.public_key(), algorithms=["ES256"])
        assert verified["payload"] == {"sub": "alice", "n": number}
        assert verified["header"] == {"alg": "ES256", "kid": "k1", "typ": "logout+jwt"}


@pytest.mark.parametrize("sub", ["zoë ☃", "\ud800", 'a"b\\c\n', "\x00", "𝔘"])
def test_any_text_is_kept(sub: str) -> None:
    """B12: also characters that JSON must escape."""
    token = compact_signer(private("EdDSA"), Algorithm.EDDSA, "k1", None)({"sub": sub, "big": 2**70})
    payload = token.split(".")[1]
    assert json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4))) == {"sub": sub, "big": 2**70}
