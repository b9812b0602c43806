"""A key that never leaves its place: what is verified, what a fault of the place means, and what other keys notice."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from notifier.model.client import Algorithm
from notifier.model.errors import InternalFault
from notifier.model.outcome import Cause
from notifier.tokens.key_files import examine_keys
from notifier.tokens.key_ring import ExternalKeyEntry, KeyRing
from notifier.tokens.signer import SignatureResult, SignerError
from tests.tokens.key_folder import ISS, NOW, OTHER, Folder
from tests.tokens.memory_place import MemoryPlace, Rig
from tests.tokens.test_keys import claims, kid_of

AWAY, WRONG = SignatureResult.AWAY, SignatureResult.WRONG


def ring_of(*rigs: Rig, **more: object) -> KeyRing:
    keys = [ExternalKeyEntry(external_key=rig.key, setting=f"keys[{nth}]", **more) for nth, rig in enumerate(rigs)]  # type: ignore[arg-type]
    return examine_keys({ISS: keys}, clock=lambda: NOW)[0]


async def known(kind: str = "ES256", **more: float) -> Rig:
    rig = Rig(MemoryPlace(kind), **more)  # type: ignore[arg-type]
    await rig.key.check()
    assert rig.key.fault is None
    return rig


async def test_a_key_is_published_once_its_place_has_told_it() -> None:
    """Before, the issuer has no such key, and the reason says so."""
    rig = Rig(MemoryPlace("RS256"))
    ring = ring_of(rig)
    assert ring.jwks(ISS) == {"keys": []}
    with pytest.raises(InternalFault, match=r"has no key for RS256; memory k is not known yet") as met:
        await ring.sign(ISS, Algorithm.RS256, None, claims())
    assert met.value.cause is Cause.SIGNING
    await rig.key.check()
    ring.update()
    [jwk] = ring.jwks(ISS)["keys"]
    assert "alg" not in jwk
    assert kid_of(await ring.sign(ISS, Algorithm.RS256, None, claims())) == jwk["kid"]


async def test_a_signature_that_does_not_verify_is_never_used() -> None:
    """A faulty HSM is a deferral, and is left alone from then on."""
    rig = await known("RS256")
    ring = ring_of(rig)
    rig.place.spoilt = lambda _alg, signature: signature[:10] + bytes([signature[10] ^ 1]) + signature[11:]
    with pytest.raises(InternalFault, match="RS256 does not verify, and is not used") as met:
        await ring.sign(ISS, Algorithm.RS256, None, claims())
    assert met.value.cause is Cause.SIGNING
    asked = len(rig.place.asked)
    with pytest.raises(InternalFault, match="does not verify"):
        await ring.sign(ISS, Algorithm.RS256, None, claims())
    assert len(rig.place.asked) == asked
    assert rig.told[-1] is SignatureResult.UNVERIFIED


async def test_an_algorithm_that_fails_at_the_start_is_left_out_with_its_reason() -> None:
    """Strict clients refuse PSS with the longest salt: RFC 7518 §3.5 wants one as long as the hash."""
    place = MemoryPlace("RS256", lacking={Algorithm.RS512: "the token cannot do SHA512_RSA_PKCS"})
    key = place.key
    assert isinstance(key, RSAPrivateKey)
    padding = PSS(MGF1(SHA256()), PSS.MAX_LENGTH)
    place.spoilt = lambda alg, made: key.sign(b"notifier tries this key", padding, SHA256()) if alg == "PS256" else made
    rig = Rig(place)
    await rig.key.check()
    assert rig.key.fault is None
    assert rig.key.algorithms == {"RS256", "RS384", "PS384", "PS512"}
    ring = ring_of(rig)
    with pytest.raises(InternalFault, match="its signature by PS256 does not verify"):
        await ring.sign(ISS, Algorithm.PS256, None, claims())
    with pytest.raises(InternalFault, match="the token cannot do SHA512_RSA_PKCS"):
        await ring.sign(ISS, Algorithm.RS512, None, claims())


async def test_a_place_that_gives_no_answer_is_left_alone() -> None:
    """After the time limit nobody waits for it any more, until a look has found it well."""
    rig = await known(timeout=0.01)
    ring = ring_of(rig)
    rig.place.hangs = True
    with pytest.raises(InternalFault, match="no answer within 10ms"):
        await ring.sign(ISS, Algorithm.ES256, None, claims())
    asked = len(rig.place.asked)
    for _ in range(500):
        with pytest.raises(InternalFault, match="no answer within 10ms"):
            await ring.sign(ISS, Algorithm.ES256, None, claims())
    assert len(rig.place.asked) == asked
    rig.place.hangs = False
    rig.times.now += 1
    assert rig.key.due(rig.times.now) == 0
    await rig.key.check()
    assert rig.key.fault is None
    await ring.sign(ISS, Algorithm.ES256, None, claims())


async def test_a_place_that_stays_away_is_looked_at_every_other_second() -> None:
    """After 1 s, and then every 2 s: all that waits for it comes soon. The fault keeps the moment at which it began."""
    rig = await known()
    began = rig.times.now
    rig.place.fault = SignerError("sealed")
    waits = []
    for _ in range(4):
        await rig.key.check()
        waits.append(rig.key.due(rig.times.now))
        rig.times.now += waits[-1]
    assert waits == [1, 2, 2, 2]
    assert rig.key.fault is not None
    assert (rig.key.fault.text, rig.key.fault.since) == ("sealed", began)
    rig.key.check_soon()
    assert rig.key.due(rig.times.now) == 0


async def test_a_service_that_throttles_says_how_long_it_wants_to_rest() -> None:
    """`Retry-After` counts, up to the longest wait; what is wrong waits longest at once."""
    for fault, wait in (
        (SignerError("429", AWAY, 7.0), 7),
        (SignerError("429", AWAY, 900.0), 30),
        (SignerError("no", WRONG), 30),
    ):
        rig = await known()
        rig.place.fault = fault
        await rig.key.check()
        assert rig.key.due(rig.times.now) == wait


async def test_no_more_run_at_a_time_than_was_set() -> None:
    """The others wait for their turn, as long as the turn comes soon."""
    rig = await known(concurrency=3)
    ring = ring_of(rig)
    rig.place.held = asyncio.Event()
    asked = [asyncio.create_task(ring.sign(ISS, Algorithm.ES256, None, claims())) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rig.place.held.set()
    assert len({*await asyncio.gather(*asked)}) == 20  # an ECDSA signature is never the same
    assert rig.place.most == 3


async def test_nobody_waits_long_for_a_slow_place() -> None:
    """A delivery that would wait for its turn longer than half a second is put off: it takes the room of others."""
    rig = await known(concurrency=1)
    ring = ring_of(rig)
    for _ in range(40):
        rig.key._circuit.on_success(rig.times.now, 1.0)  # it takes a second by now
    rig.place.held = asyncio.Event()
    first = asyncio.create_task(ring.sign(ISS, Algorithm.ES256, None, claims()))
    await asyncio.sleep(0)
    with pytest.raises(InternalFault, match="more signatures are asked of it than it makes"):
        await ring.sign(ISS, Algorithm.ES256, None, claims())
    rig.place.held.set()
    await first
    assert rig.key.fault is None


async def test_another_key_under_the_same_name_does_not_sign() -> None:
    """Clients do not know it: its entry needs another `not_before`."""
    rig = await known()
    other = MemoryPlace("ES384")
    rig.place.key = other.key
    await rig.key.check()
    assert rig.key.fault is not None
    assert "set not_before of its entry a day ahead" in rig.key.fault.text
    assert rig.key.fault.result is WRONG


async def test_one_issuer_s_place_is_not_another_s(folder: Folder) -> None:
    """The keys of others sign on, and a file's key of the same issuer for its own algorithm too."""
    rig = await known("RS256")
    rig.place.fault = SignerError("sealed")
    external_key = ExternalKeyEntry(external_key=rig.key, setting="x")
    ring, mistakes = examine_keys({ISS: [external_key, folder.source("ES256")], OTHER: [folder.source("RS256")]})
    assert mistakes == []
    with pytest.raises(InternalFault, match=r"key '.*' of issuer https://id.example.com \(memory k\): sealed"):
        await ring.sign(ISS, Algorithm.RS256, None, claims())
    assert await ring.sign(ISS, Algorithm.ES256, None, claims())
    assert await ring.sign(OTHER, Algorithm.RS256, None, claims(OTHER))


async def test_not_before_and_kid_are_the_configuration_s() -> None:
    """They mean what they mean for a file."""
    early, late = await known("ES256"), Rig(MemoryPlace())
    late.place.key = generate_private_key(SECP256R1())
    await late.key.check()
    keys = [
        ExternalKeyEntry(external_key=early.key, setting="a"),
        ExternalKeyEntry(external_key=late.key, setting="b", not_before=NOW + 10, kid="next"),
    ]
    now = NOW
    ring = examine_keys({ISS: keys}, clock=lambda: now)[0]
    assert [each["kid"] for each in ring.jwks(ISS)["keys"]][1] == "next"
    assert kid_of(await ring.sign(ISS, Algorithm.ES256, None, claims())) != "next"
    now += 10
    assert kid_of(await ring.sign(ISS, Algorithm.ES256, None, claims())) == "next"
