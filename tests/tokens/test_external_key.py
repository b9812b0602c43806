"""Test keys of a signer: verification of signatures, faults of the signer, and isolation of other keys."""

import asyncio
from typing import Any

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
from tests.tokens.memory_place import MemoryPlace, SignerHarness
from tests.tokens.test_keys import claims, kid_of

AWAY, WRONG = SignatureResult.AWAY, SignatureResult.WRONG


def ring_of(*harnesses: SignerHarness, **more: Any) -> KeyRing:
    keys = [
        ExternalKeyEntry(external_key=harness.key, setting=f"keys[{nth}]", **more)
        for nth, harness in enumerate(harnesses)
    ]
    return examine_keys({ISS: keys}, clock=lambda: NOW)[0]


async def known(kind: str = "ES256", **more: float) -> SignerHarness:
    harness = SignerHarness(MemoryPlace(kind), **more)  # type: ignore[arg-type]
    await harness.key.check()
    assert harness.key.fault is None
    return harness


async def test_key_is_published_once_its_signer_returned_it() -> None:
    """Before, the issuer has no such key, and the reason states it."""
    harness = SignerHarness(MemoryPlace("RS256"))
    ring = ring_of(harness)
    assert ring.jwks(ISS) == {"keys": []}
    with pytest.raises(InternalFault, match=r"has no key for RS256; memory k is not known yet") as met:
        await ring.sign(ISS, Algorithm.RS256, None, claims())
    assert met.value.cause is Cause.SIGNING
    await harness.key.check()
    ring.update()
    [jwk] = ring.jwks(ISS)["keys"]
    assert "alg" not in jwk
    assert kid_of(await ring.sign(ISS, Algorithm.RS256, None, claims())) == jwk["kid"]


async def test_invalid_signature_is_never_used() -> None:
    """A faulty HSM defers, and is not used from then on."""
    harness = await known("RS256")
    ring = ring_of(harness)
    harness.place.spoilt = lambda _alg, signature: signature[:10] + bytes([signature[10] ^ 1]) + signature[11:]
    with pytest.raises(InternalFault, match="RS256 does not verify, and is not used") as met:
        await ring.sign(ISS, Algorithm.RS256, None, claims())
    assert met.value.cause is Cause.SIGNING
    asked = len(harness.place.asked)
    with pytest.raises(InternalFault, match="does not verify"):
        await ring.sign(ISS, Algorithm.RS256, None, claims())
    assert len(harness.place.asked) == asked
    assert harness.results[-1] is SignatureResult.UNVERIFIED


async def test_algorithm_that_fails_at_start_is_omitted_with_the_reason() -> None:
    """Strict clients refuse PSS with the longest salt: RFC 7518 §3.5 requires the length of the hash."""
    place = MemoryPlace("RS256", lacking={Algorithm.RS512: "the token cannot do SHA512_RSA_PKCS"})
    key = place.key
    assert isinstance(key, RSAPrivateKey)
    padding = PSS(MGF1(SHA256()), PSS.MAX_LENGTH)
    place.spoilt = lambda alg, made: key.sign(b"notifier tries this key", padding, SHA256()) if alg == "PS256" else made
    harness = SignerHarness(place)
    await harness.key.check()
    assert harness.key.fault is None
    assert harness.key.algorithms == {"RS256", "RS384", "PS384", "PS512"}
    ring = ring_of(harness)
    with pytest.raises(InternalFault, match="its signature by PS256 does not verify"):
        await ring.sign(ISS, Algorithm.PS256, None, claims())
    with pytest.raises(InternalFault, match="the token cannot do SHA512_RSA_PKCS"):
        await ring.sign(ISS, Algorithm.RS512, None, claims())


async def test_unresponsive_signer_is_not_used() -> None:
    """After the time limit no delivery waits for it, until a check succeeds."""
    harness = await known(timeout=0.01)
    ring = ring_of(harness)
    harness.place.hangs = True
    with pytest.raises(InternalFault, match="no answer within 10ms"):
        await ring.sign(ISS, Algorithm.ES256, None, claims())
    asked = len(harness.place.asked)
    for _ in range(500):
        with pytest.raises(InternalFault, match="no answer within 10ms"):
            await ring.sign(ISS, Algorithm.ES256, None, claims())
    assert len(harness.place.asked) == asked
    harness.place.hangs = False
    harness.times.now += 1
    assert harness.key.seconds_until_check(harness.times.now) == 0
    await harness.key.check()
    assert harness.key.fault is None
    await ring.sign(ISS, Algorithm.ES256, None, claims())


async def test_unavailable_signer_is_checked_every_two_seconds() -> None:
    """After 1 s, and then every 2 s, so that deliveries continue soon. The fault keeps its start time."""
    harness = await known()
    began = harness.times.now
    harness.place.fault = SignerError("sealed")
    waits = []
    for _ in range(4):
        await harness.key.check()
        waits.append(harness.key.seconds_until_check(harness.times.now))
        harness.times.now += waits[-1]
    assert waits == [1, 2, 2, 2]
    assert harness.key.fault is not None
    assert (harness.key.fault.text, harness.key.fault.since) == ("sealed", began)
    harness.key.check_soon()
    assert harness.key.seconds_until_check(harness.times.now) == 0


async def test_retry_after_of_a_signer_is_obeyed() -> None:
    """`Retry-After` is obeyed, up to the longest wait; a permanent error waits longest at once."""
    for fault, wait in (
        (SignerError("429", AWAY, 7.0), 7),
        (SignerError("429", AWAY, 900.0), 30),
        (SignerError("no", WRONG), 30),
    ):
        harness = await known()
        harness.place.fault = fault
        await harness.key.check()
        assert harness.key.seconds_until_check(harness.times.now) == wait


async def test_concurrency_limit_of_a_signer() -> None:
    """The others wait, if a slot is free soon."""
    harness = await known(concurrency=3)
    ring = ring_of(harness)
    harness.place.held = asyncio.Event()
    asked = [asyncio.create_task(ring.sign(ISS, Algorithm.ES256, None, claims())) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    harness.place.held.set()
    assert len({*await asyncio.gather(*asked)}) == 20  # an ECDSA signature is never the same
    assert harness.place.most == 3


async def test_deliveries_do_not_wait_long_for_a_slow_signer() -> None:
    """A delivery that would wait longer than half a second is deferred, since it occupies a slot."""
    harness = await known(concurrency=1)
    ring = ring_of(harness)
    for _ in range(40):
        harness.key._circuit.on_success(harness.times.now, 1.0)  # it takes a second by now
    harness.place.held = asyncio.Event()
    first = asyncio.create_task(ring.sign(ISS, Algorithm.ES256, None, claims()))
    await asyncio.sleep(0)
    with pytest.raises(InternalFault, match="more signatures are asked of it than it makes"):
        await ring.sign(ISS, Algorithm.ES256, None, claims())
    harness.place.held.set()
    await first
    assert harness.key.fault is None


async def test_replaced_key_of_the_same_name_does_not_sign() -> None:
    """Clients do not have it: its entry needs another `not_before`."""
    harness = await known()
    other = MemoryPlace("ES384")
    harness.place.key = other.key
    await harness.key.check()
    assert harness.key.fault is not None
    assert "set not_before of its entry a day ahead" in harness.key.fault.text
    assert harness.key.fault.result is WRONG


async def test_fault_of_a_signer_does_not_affect_other_issuers(folder: Folder) -> None:
    """The keys of others continue to sign, and a file's key of the same issuer too."""
    harness = await known("RS256")
    harness.place.fault = SignerError("sealed")
    external_key = ExternalKeyEntry(external_key=harness.key, setting="x")
    ring, mistakes = examine_keys({ISS: [external_key, folder.source("ES256")], OTHER: [folder.source("RS256")]})
    assert mistakes == []
    with pytest.raises(InternalFault, match=r"key '.*' of issuer https://id.example.com \(memory k\): sealed"):
        await ring.sign(ISS, Algorithm.RS256, None, claims())
    assert await ring.sign(ISS, Algorithm.ES256, None, claims())
    assert await ring.sign(OTHER, Algorithm.RS256, None, claims(OTHER))


async def test_not_before_and_kid_come_from_the_configuration() -> None:
    """They have the same meaning as for a file."""
    early, late = await known("ES256"), SignerHarness(MemoryPlace())
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
