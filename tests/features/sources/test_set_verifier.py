"""Which Security Event Tokens are taken (RFC 8417), what RFC 8935 calls the others, and when keys are read."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping
from math import lcm
from typing import Any

import pytest
import structlog

from notifier.features.sources.source_proofs import SetVerifier
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.tokens.security_event_token import KeysUnavailable, UnacceptedSet, VerifiedSet, check_claims
from notifier.tokens.signed_content import MAX_TOKEN_BYTES
from notifier.tokens.transmitter_keys import (
    CROWDED_INTERVAL_SECONDS,
    FRESH_SECONDS,
    MAX_WAITING_TOKENS,
    RETRY_SECONDS,
    UNKNOWN_INTERVAL_SECONDS,
    TransmitterKeys,
)
from tests.features.sources.set_transmitter import SetTransmitter
from tests.tokens.transmitter import AUDIENCE, CLAIMS, ISSUER, NOW, key, public, segments, shared_secret, signed

OURS = public(key("P-256"))


def outcome(found: VerifiedSet | UnacceptedSet | KeysUnavailable) -> str:
    """`taken`, `away`, or the error code."""
    return found.err if isinstance(found, UnacceptedSet) else "taken" if isinstance(found, VerifiedSet) else "away"


async def verify(transmitter: SetTransmitter, token: bytes) -> str:
    return outcome(await transmitter.verifier.verify(token))


# ── the token ──


@pytest.mark.parametrize(
    ("kind", "alg"),
    [
        ("RSA", "RS256"),
        ("RSA", "PS512"),
        ("P-256", "ES256"),
        ("P-384", "ES384"),
        ("P-521", "ES512"),
        ("Ed25519", "EdDSA"),
        ("Ed25519", "Ed25519"),
    ],
)
async def test_a_token_signed_by_the_transmitter_is_accepted(kind: str, alg: str) -> None:
    """By each kind of key. The result is the signed content, never the token."""
    of = key(kind)
    transmitter = SetTransmitter(OURS | {"kid": "another"}, public(of))
    found = await transmitter.verifier.verify(signed(of=of, alg=alg) + b"\n")
    assert isinstance(found, VerifiedSet)
    assert json.loads(found.claims) == CLAIMS
    assert "raw-sub-77" not in repr(found)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"typ": None}, "taken"),
        ({"typ": "application/SecEvent+JWT"}, "taken"),
        ({"typ": "JWT"}, "invalid_request"),
        ({"typ": 5}, "invalid_request"),
        ({"crit": ["exp"], "exp": 1}, "invalid_request"),
        ({"kid": "nobody's"}, "invalid_key"),
        ({"kid": None}, "taken"),
    ],
)
async def test_the_header_of_a_token(header: Mapping[str, Any], expected: str) -> None:
    """`typ` may be absent, but not that of another kind of token."""
    assert await verify(SetTransmitter(OURS), signed(**header)) == expected


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"aud": [AUDIENCE, "other"]}, "taken"),
        ({"aud": ["other"]}, "invalid_audience"),
        ({"aud": AUDIENCE + "/"}, "invalid_audience"),
        ({"aud": None}, "invalid_audience"),
        ({"aud": {AUDIENCE: 1}}, "invalid_audience"),
        ({"iss": "https://evil.example.com"}, "invalid_issuer"),
        ({"iss": None}, "invalid_issuer"),
        ({"iat": NOW - 40 * 86_400}, "taken"),
        ({"iat": NOW + 60}, "taken"),
        ({"iat": True}, "invalid_request"),
        ({"iat": None}, "invalid_request"),
        ({"jti": ""}, "invalid_request"),
        ({"events": {}}, "invalid_request"),
        ({"events": ["https://a"]}, "invalid_request"),
        ({"exp": NOW + 10}, "taken"),
        ({"exp": NOW - 3600}, "invalid_request"),
        ({"exp": "soon"}, "invalid_request"),
    ],
)
async def test_the_claims_of_a_token(claims: Mapping[str, Any], expected: str) -> None:
    """A claim that is None is left out."""
    given = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    assert await verify(SetTransmitter(OURS), signed(given)) == expected


@pytest.mark.parametrize(
    ("claims", "phrase"),
    [
        ({"iat": NOW * 1000}, "iat is in milliseconds; it must be in seconds"),
        ({"iat": NOW + 3600}, "iat is in the future"),
        ({"nbf": NOW * 1000}, "nbf is in milliseconds; it must be in seconds"),
        ({"nbf": NOW + 3600}, "nbf is in the future"),
    ],
)
def test_milliseconds_are_not_taken_for_a_clock(claims: Mapping[str, Any], phrase: str) -> None:
    """The answer names the unit."""
    found = check_claims({**CLAIMS, **claims}, issuer=CLAIMS["iss"], audience=AUDIENCE, now=NOW)
    assert found is not None
    assert found.description == phrase


async def test_a_forged_set_is_refused() -> None:
    """No algorithm, a public key as the secret of an HMAC, another's key, another kind of key, a changed content."""
    transmitter = SetTransmitter(OURS, public(key("RSA"), "rsa"), public(key("RSA1024"), "weak"))
    unsigned = segments(b'{"alg": "none", "kid": "k1"}', json.dumps(CLAIMS).encode(), b"")
    head, _, signature = signed().split(b".")
    changed = segments(json.dumps({**CLAIMS, "jti": "j2"}).encode())
    forged = {
        "none": (unsigned, "authentication_failed"),
        "changed": (b".".join((head, changed, signature)), "authentication_failed"),
        "another's": (signed(of=key("P-256", "evil")), "authentication_failed"),
        "another kind": (signed(of=key("RSA"), alg="RS256"), "invalid_key"),
        "weak": (signed(of=key("RSA1024"), alg="RS256", kid="weak"), "invalid_key"),
        "own key": (signed(of=key("P-256", "evil"), jwk=public(key("P-256", "evil"))), "authentication_failed"),
    }
    for secret in shared_secret(OURS):
        forged[f"HS256 {len(forged)}"] = (signed(of=secret, alg="HS256"), "authentication_failed")
    for name, (token, expected) in forged.items():
        assert await verify(transmitter, token) == expected, name


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"..",
        b"\xff.\xff.\xff",
        signed() + b".x",
        segments(b"[]", b"{}", b"x"),
        segments(b'{"alg": ["ES256"]}', b"{}", b"x"),
        segments(b'{"alg": "ES256", "kid": {"a": 1}}', b"{}", b"x"),
        segments(b'{"alg": "ES256", "x": "%s"}' % (b"y" * 9000), b"{}", b"x"),
        b"[" * 3000 + b".e30.e30",
        segments(b"[" * 2000, b"{}", b"x"),
        signed({**CLAIMS, "pad": "x" * MAX_TOKEN_BYTES}),
    ],
    ids=range(11),
)
async def test_malformed_tokens_are_refused(token: bytes) -> None:
    """Whatever a stranger sends."""
    assert await verify(SetTransmitter(OURS), token) in ("invalid_request", "authentication_failed")


@pytest.mark.parametrize("payload", [b"[]", b"null", b"{", b'{"iat": NaN}', b"[" * 5000, b"\xff"], ids=range(6))
async def test_signed_content_without_claims_is_refused(payload: bytes) -> None:
    """Even the transmitter's own."""
    assert await verify(SetTransmitter(OURS), signed(payload)) == "invalid_request"


# ── the keys ──


@pytest.mark.parametrize(
    ("jwk", "expected"),
    [
        (public(key("P-256"), use="sig", alg="ES256"), "taken"),
        (public(key("P-256"), key_ops=["verify"]), "taken"),
        (public(key("P-256"), None), "taken"),
        ({**OURS, "x": 5}, "invalid_key"),
        ({"kid": "k1"}, "invalid_key"),
    ],
    ids=range(5),
)
async def test_which_published_keys_verify(jwk: Mapping[str, Any], expected: str) -> None:
    """Public keys for signatures; a broken key is skipped."""
    assert await verify(SetTransmitter({"kty": "?"}, jwk), signed()) == expected


@pytest.mark.parametrize("kind", ["RSA", "P-256", "Ed25519"])
@pytest.mark.parametrize("empty", [None, "", []], ids=["null", "text", "list"])
async def test_an_empty_member_of_a_key_is_absent(kind: str, empty: object) -> None:
    """Serializers of .NET, Go and Java write it for a member that is not set."""
    names = ("use", "alg", "key_ops", "oth", "x5c", "x5t", "x5u", "d", "p", "q", "dp", "dq", "qi", "k")
    alg = {"RSA": "RS256", "P-256": "ES256", "Ed25519": "Ed25519"}[kind]
    transmitter = SetTransmitter({**dict.fromkeys(names, empty), **public(key(kind))})
    assert await verify(transmitter, signed(of=key(kind), alg=alg)) == "taken"


async def test_a_member_of_another_type_is_ignored() -> None:
    """RFC 7517 §5: what cannot be used."""
    transmitter = SetTransmitter({**OURS, "kid": 7, "use": ["sig"], "alg": False, "key_ops": "verify"})
    assert await verify(transmitter, signed(kid=None)) == "taken"


@pytest.mark.parametrize("published", ["EdDSA", "Ed25519"])
@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
async def test_one_algorithm_has_two_names(published: str, alg: str) -> None:
    """RFC 8037 and RFC 9864."""
    transmitter = SetTransmitter(public(key("Ed25519"), alg=published))
    assert await verify(transmitter, signed(of=key("Ed25519"), alg=alg)) == "taken"


@pytest.mark.parametrize(
    "jwk",
    [
        public(key("P-256"), use="enc"),
        public(key("P-256"), key_ops=["sign"]),
        public(key("P-256"), alg="ES384"),
        public(key("P-384")),
        public(key("P-256"), crv="secp256k1"),
        public(key("P-256"), x="AA"),
        public(key("P-256"), y=None),
        {**key("P-256").as_dict(private=True), "kid": "k1"},
        {"kty": "oct", "k": "AAAA", "kid": "k1"},
    ],
    ids=range(9),
)
async def test_a_key_that_verifies_nothing_is_unused(jwk: Mapping[str, Any]) -> None:
    """For another use or algorithm, damaged, or published with its private half."""
    found = await SetTransmitter(jwk).verifier.verify(signed())
    assert isinstance(found, UnacceptedSet)
    assert found.description.endswith("fits kid and alg")


async def test_the_log_names_the_key_that_is_left_out() -> None:
    """Once, and no key that is meant for something else."""
    enc = public(key("RSA"), "e1", alg="RSA-OAEP")
    transmitter = SetTransmitter(public(key("P-256"), alg="ES512"), enc, {"kty": "AKP", "kid": "later"})
    with structlog.testing.capture_logs() as lines:
        await verify(transmitter, signed())
        transmitter.monotonic += 400
        await verify(transmitter, signed())
    assert [line["reason"] for line in lines] == ["key 'k1' is for ES512"]


async def test_a_long_header_is_read_and_a_long_token_is_named() -> None:
    """Up to the limit of a token, whatever its header carries."""
    chain = ["A" * 2200, "B" * 2200, "C" * 2200]
    assert await verify(SetTransmitter(OURS), signed(x5c=chain)) == "taken"
    found = await SetTransmitter(OURS).verifier.verify(signed(x5c=chain * 3))
    assert isinstance(found, UnacceptedSet)
    assert found.description == "the token is larger than 16 KiB"


async def test_the_answer_names_the_limit_of_tried_keys() -> None:
    """A token without kid may be signed by a later one."""
    keys = (public(key("P-256", str(nth)), None) for nth in range(20))
    found = await SetTransmitter(*keys).verifier.verify(signed(of=key("P-256", "19"), kid=None))
    assert isinstance(found, UnacceptedSet)
    assert found.description == "none of the 8 keys that are tried verifies the signature; name the key by kid"


def rsa_with(**numbers: int) -> dict[str, Any]:
    """The public half of an RSA key with other numbers."""
    bits = {name: number.to_bytes((number.bit_length() + 7) // 8) for name, number in numbers.items()}
    return public(key("RSA"), **{name: segments(value).decode() for name, value in bits.items()})


def slow_exponent() -> int:
    """Another public exponent of the same key: what it signed is verified by it as well, fifty times as slowly."""
    secret = key("RSA").as_dict(private=True)
    p, q, e = (int.from_bytes(base64.urlsafe_b64decode(f"{secret[name]}==")) for name in ("p", "q", "e"))
    return e + lcm(p - 1, q - 1)


@pytest.mark.parametrize(
    ("jwk", "expected"),
    [
        (rsa_with, "taken"),
        (lambda: rsa_with(e=slow_exponent()), "invalid_key"),
        (lambda: {**rsa_with(), "e": "\u00e9" + rsa_with(e=slow_exponent())["e"]}, "invalid_key"),
        (lambda: rsa_with(n=(1 << 8192) + 1), "invalid_key"),
        (lambda: rsa_with(n=(1 << 1024) + 1), "invalid_key"),
    ],
    ids=["right", "slow", "slow, spelled so that it seems short", "large", "weak"],
)
async def test_an_rsa_key_is_within_the_bounds_of_clients_keys(jwk: Callable[[], Any], expected: str) -> None:
    """Else eight of them, tried for each token of a stranger, would keep a worker busy."""
    with structlog.testing.capture_logs() as lines:
        assert await verify(SetTransmitter(jwk()), signed(of=key("RSA"), alg="RS256")) == expected
    assert [line["event"] for line in lines] == ([] if expected == "taken" else ["jwks_unread"])
    assert all("key 'k1' has " in line["reason"] for line in lines)


async def test_a_new_key_is_found_when_a_token_names_it() -> None:
    """The withdrawn key no longer verifies."""
    transmitter = SetTransmitter(OURS)
    assert await verify(transmitter, signed()) == "taken"
    transmitter.monotonic += 1
    transmitter.publish(public(key("P-256", "new"), "k2"))
    assert await verify(transmitter, signed(of=key("P-256", "new"), kid="k2")) == "taken"
    transmitter.monotonic += 1
    assert await verify(transmitter, signed()) == "invalid_key"  # it may have come since, so the set was read once more
    assert transmitter.readings == 3


async def test_a_second_new_key_is_waited_for() -> None:
    """Also if the set was read for another just now: who sends once loses nothing by it."""
    transmitter = SetTransmitter(OURS)
    for number in range(5):
        transmitter.publish(OURS, public(key("P-256", "new"), f"new-{number}"))
        assert await verify(transmitter, signed(of=key("P-256", "new"), kid=f"new-{number}")) == "taken"
        transmitter.monotonic += 0.1
    assert transmitter.readings == 5
    assert transmitter.monotonic <= 1000.6 + 3 * UNKNOWN_INTERVAL_SECONDS


async def test_the_number_of_tokens_waiting_for_keys_is_bounded() -> None:
    """Further tokens get a retryable answer at once, and a token of a known key does not wait."""
    transmitter, due = SetTransmitter(OURS), asyncio.Event()

    async def pause(seconds: float) -> None:
        await due.wait()
        transmitter.monotonic = 1002.0 + seconds

    transmitter.keys = TransmitterKeys(ISSUER, transmitter.read, lambda: transmitter.monotonic, pause)
    transmitter.verifier = SetVerifier(transmitter.keys, issuer=ISSUER, audience=AUDIENCE, clock=lambda: NOW)
    for name in ("one", "another"):  # the set is read for the first, and again for the second
        assert await verify(transmitter, signed(kid=name)) == "invalid_key"
        transmitter.monotonic += 0.1
    asked = [
        asyncio.create_task(verify(transmitter, signed(kid=f"made-up-{nth}"))) for nth in range(MAX_WAITING_TOKENS + 5)
    ]
    early, held = await asyncio.wait(asked[MAX_WAITING_TOKENS:])
    assert ([task.result() for task in early], held) == (["away"] * 5, set())
    assert await verify(transmitter, signed()) == "taken"
    assert (transmitter.readings, any(task.done() for task in asked[:MAX_WAITING_TOKENS])) == (2, False)
    due.set()
    assert await asyncio.gather(*asked[:MAX_WAITING_TOKENS]) == ["invalid_key"] * MAX_WAITING_TOKENS
    assert transmitter.readings == 3


async def test_tokens_with_refused_claims_take_no_place() -> None:
    """They are answered at once, although their kids are unknown."""
    transmitter = SetTransmitter(OURS)
    for name in ("one", "another"):
        assert await verify(transmitter, signed(kid=name)) == "invalid_key"
    before = transmitter.monotonic
    for nth in range(2 * MAX_WAITING_TOKENS):
        strange = signed({**CLAIMS, "aud": "elsewhere"}, kid=f"made-up-{nth}")
        assert await verify(transmitter, strange) == "invalid_key"
    assert transmitter.monotonic == before


async def test_invented_kids_take_no_place_of_a_new_key() -> None:
    """A crowd of strangers brings the next reading forward, which answers all tokens that wait."""
    transmitter, all_wait, sleepers = SetTransmitter(OURS), asyncio.Event(), list[tuple[float, asyncio.Event]]()

    async def pause(seconds: float) -> None:
        sleepers.append((transmitter.monotonic + seconds, asyncio.Event()))
        if len(sleepers) == MAX_WAITING_TOKENS:
            all_wait.set()
        await sleepers[-1][1].wait()

    transmitter.keys = TransmitterKeys(ISSUER, transmitter.read, lambda: transmitter.monotonic, pause)
    transmitter.verifier = SetVerifier(transmitter.keys, issuer=ISSUER, audience=AUDIENCE, clock=lambda: NOW)
    for name in ("one", "another"):
        assert await verify(transmitter, signed(kid=name)) == "invalid_key"
        transmitter.monotonic += 0.01
    transmitter.publish(OURS | {"kid": "new"})
    strange = [
        asyncio.create_task(verify(transmitter, signed(kid=f"made-up-{nth}"))) for nth in range(MAX_WAITING_TOKENS - 2)
    ]
    ours = [asyncio.create_task(verify(transmitter, signed(kid="new"))) for _ in range(2)]
    await asyncio.wait_for(all_wait.wait(), timeout=5)
    wake_at, first = min(sleepers, key=lambda sleeper: sleeper[0])
    assert wake_at <= transmitter.monotonic + CROWDED_INTERVAL_SECONDS
    transmitter.monotonic = wake_at
    first.set()
    assert await asyncio.gather(*ours, *strange) == ["taken"] * 2 + ["invalid_key"] * len(strange)
    assert transmitter.readings == 3


@pytest.mark.parametrize("kid", [None, "k1"])
async def test_a_new_key_without_a_kid_is_found_too(kid: str | None) -> None:
    """Without a kid, a signature that fits no known key indicates a new key."""
    transmitter = SetTransmitter(public(key("P-256"), None))
    assert await verify(transmitter, signed(kid=kid)) == "taken"
    transmitter.monotonic += 1
    transmitter.publish(public(key("P-256", "new"), None))
    assert await verify(transmitter, signed(of=key("P-256", "new"), kid=kid)) == "taken"
    assert transmitter.readings == 2
    assert await verify(transmitter, signed(of=key("P-256", "evil"), kid=kid)) in ("authentication_failed", "away")


async def test_strangers_cannot_have_keys_read_all_the_time() -> None:
    """One reading in UNKNOWN_EVERY for all of them; meanwhile whom a known key signed for is taken."""
    transmitter = SetTransmitter(OURS)
    for number in range(50):
        transmitter.monotonic += 0.1
        assert await verify(transmitter, signed(kid=f"made-up-{number}")) == "invalid_key"
        assert await verify(transmitter, signed()) == "taken"
        assert await verify(transmitter, signed(of=key("P-256", "evil"))) == "authentication_failed"
    assert transmitter.readings <= 2 + (transmitter.monotonic - 1000.0) / UNKNOWN_INTERVAL_SECONDS


async def test_damaged_keys_of_two_transmitters_are_examined_once() -> None:
    """A reading examines the 100 keys of a set, which takes the loop 5 ms. No later token does it again."""
    point = base64.urlsafe_b64encode(b"\x01" * 66).decode()
    bad = {"kty": "EC", "crv": "P-521", "x": point, "y": point}
    ours = public(key("P-521"), None)
    transmitters = [SetTransmitter(*({**bad, "kid": f"{name}{nth}"} for nth in range(99)), ours) for name in "ab"]
    spent = []
    for _ in range(3):
        began = time.process_time()
        for transmitter in transmitters:
            assert await verify(transmitter, signed(of=key("P-521"), alg="ES512", kid=None)) == "taken"
        spent.append(time.process_time() - began)
    assert min(spent[1:]) < spent[0] / 2


async def test_a_key_that_was_withdrawn_verifies_nothing_after_some_minutes() -> None:
    """The set is read again although its keys fit all that comes."""
    transmitter = SetTransmitter(OURS, public(key("P-256", "new"), "k2"))
    assert await verify(transmitter, signed()) == "taken"
    transmitter.publish(public(key("P-256", "new"), "k2"))
    transmitter.monotonic += FRESH_SECONDS
    assert await verify(transmitter, signed()) == "invalid_key"


async def test_keys_are_kept_while_the_transmitter_is_unavailable() -> None:
    """For as long as it takes; a key that nobody knows is not judged meanwhile."""
    transmitter = SetTransmitter(OURS)
    assert await verify(transmitter, signed()) == "taken"
    transmitter.away = True
    for _ in range(3):
        transmitter.monotonic += 86_400
        assert await verify(transmitter, signed()) == "taken"
        assert await verify(transmitter, signed(of=key("P-256", "evil"))) == "authentication_failed"
    assert await verify(transmitter, signed(of=key("P-256", "new"), kid="k2")) == "away"
    transmitter.content = {"no": "keys"}
    transmitter.away = False
    transmitter.monotonic += 86_400
    assert await verify(transmitter, signed()) == "taken"


@pytest.mark.parametrize("content", [None, [], {"keys": {}}, "x"])
async def test_without_keys_the_sender_must_retry(content: object) -> None:
    """Never readable: no refusal, which would be final. It is asked again soon, not at each token."""
    transmitter = SetTransmitter()
    transmitter.content, transmitter.away = content, content is None
    for _ in range(5):
        assert await verify(transmitter, signed()) == "away"
    assert transmitter.readings == 1
    transmitter.publish(OURS)
    transmitter.away = False
    transmitter.monotonic += RETRY_SECONDS
    assert await verify(transmitter, signed()) == "taken"


def hung(transmitter: SetTransmitter, patch: pytest.MonkeyPatch) -> asyncio.Event:
    """Delay the reading of the transmitter's keys until the returned event is set."""
    go, read = asyncio.Event(), transmitter.read

    async def slowly() -> IssuerDocument | DocumentIssue:
        await go.wait()
        return await read()

    patch.setattr(transmitter.keys, "_read", slowly)
    return go


async def test_tokens_that_come_at_once_wait_for_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of them is refused because another one reads."""
    transmitter = SetTransmitter(OURS)
    go = hung(transmitter, monkeypatch)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(verify(transmitter, signed())) for _ in range(20)]
        await asyncio.sleep(0)
        go.set()
    assert {task.result() for task in tasks} == {"taken"}
    assert transmitter.readings == 1


async def test_a_transmitter_that_hangs_holds_up_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its first tokens a bounded number waits. Later the old keys serve while they are read again."""
    transmitter = SetTransmitter(OURS)
    go = hung(transmitter, monkeypatch)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(verify(transmitter, signed())) for _ in range(MAX_WAITING_TOKENS + 20)]
        await asyncio.sleep(0)
        assert [task.done() and task.result() for task in tasks] == [False] * MAX_WAITING_TOKENS + ["away"] * 20
        go.set()
    assert {task.result() for task in tasks[:MAX_WAITING_TOKENS]} == {"taken"}
    go.clear()
    transmitter.monotonic += FRESH_SECONDS
    async with asyncio.TaskGroup() as group:
        first = group.create_task(verify(transmitter, signed()))
        await asyncio.sleep(0)
        assert await verify(transmitter, signed()) == "taken"
        assert not first.done()
        go.set()
    assert first.result() == "taken"
