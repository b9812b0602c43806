"""Clients' keys are read when needed and cached; an unavailable key defers only that client's deliveries."""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from jwcrypto.jwe import InvalidJWEData
from jwcrypto.jwk import JWK

from notifier.model.client import Client, ClientKeysSource, ContentEncryption, Encryption, KeyManagement, Route
from notifier.model.errors import InternalFault
from notifier.model.outcome import Cause
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.tokens import client_encryption
from notifier.tokens.client_encryption import (
    DEFAULT_FRESH_SECONDS,
    DOUBT_INTERVAL_SECONDS,
    RETRY_SECONDS,
    ClientEncryption,
    compact_encrypter,
)
from notifier.tokens.foreign_keys import MAX_KEYS, encryption_key, keep_used_keys, public_jwks, read_jwks
from tests.tokens.encryption_keys import VECTORS, keys, made, opened, public

PLACE = ClientKeysSource(uri="https://shop.example/jwks", route=Route())
SHOP = Client(iss="https://id.example.com", client_id="shop", backchannel_logout_uri="https://shop.example/bc")
TOKEN = "a.b.c"


def asked(
    keys: Any = PLACE, alg: KeyManagement = KeyManagement.ECDH_ES, enc: ContentEncryption = ContentEncryption.A128GCM
) -> Encryption:
    return Encryption(alg=alg, enc=enc, keys=keys)


@dataclass(slots=True)
class Publishing:
    """A client that publishes its keys, and a clock. With `answers` None it waits until it has some."""

    answers: IssuerDocument | DocumentIssue | None = None
    now: float = 1000.0
    read: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, *jwks: dict[str, Any], max_age: float | None = None) -> None:
        self.answers = IssuerDocument(content={"keys": list(jwks)}, fresh_seconds=max_age)
        self.more.set()

    async def give(self, place: ClientKeysSource) -> IssuerDocument | DocumentIssue:
        self.read += 1
        while self.answers is None:
            self.more.clear()
            await self.more.wait()
        return self.answers

    def encryption(self) -> ClientEncryption:
        return ClientEncryption(self.give, lambda: self.now)


async def kid(encryption: ClientEncryption, wanted: Encryption, key: JWK) -> str:
    header, content = opened(await encryption.encrypt(SHOP, wanted, TOKEN), key)
    assert content == TOKEN
    return str(header["kid"])


async def why(encryption: ClientEncryption, wanted: Encryption) -> str:
    with pytest.raises(InternalFault) as caught:
        await encryption.encrypt(SHOP, wanted, TOKEN)
    assert caught.value.cause is Cause.ENCRYPTION
    return str(caught.value)


async def settled(condition: Callable[[], bool]) -> None:
    """Wait until the started tasks have ended."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert condition()


P256 = public(made("P-256"), kid="first", use="enc")
P384 = public(made("P-384"), kid="second", use="enc")


async def after_first_read(**published: float) -> tuple[Publishing, ClientEncryption]:
    """Return a client and an encryption that has read its JWK Set."""
    shop = Publishing()
    shop.publish(P256, **published)
    encryption = shop.encryption()
    await kid(encryption, asked(), made("P-256"))
    return shop, encryption


async def test_jwk_set_is_read_once_and_cached_by_its_cache_control() -> None:
    """By its Cache-Control, an hour without, and at least a minute."""
    for max_age, fresh in ((None, DEFAULT_FRESH_SECONDS), (600.0, 600.0), (0.0, 60.0), (1e9, 86_400.0)):
        shop = Publishing()
        encryption = shop.encryption()
        tokens = asyncio.gather(*[kid(encryption, asked(), made("P-256")) for _ in range(5)])
        await settled(lambda shop=shop: shop.read == 1)  # type: ignore[misc]
        shop.publish(P256, max_age=max_age)
        assert await tokens == ["first"] * 5
        shop.now += fresh - 1
        await kid(encryption, asked(), made("P-256"))
        assert shop.read == 1
        shop.now += 1
        shop.publish(P384, P256)
        assert await kid(encryption, asked(), made("P-384")) == "second"
        assert shop.read == 2


async def test_registered_keys_need_no_request() -> None:
    """A change of the registration is a new set."""
    shop = Publishing()
    encryption = shop.encryption()
    assert await kid(encryption, asked(keys(P256)), made("P-256")) == "first"
    assert await kid(encryption, asked(keys(P384)), made("P-384")) == "second"
    assert encryption.explain_rejection(asked(keys(P384))) is None
    assert "its jwks has no key, and ECDH-ES needs one" in await why(encryption, asked(()))
    assert shop.read == 0


async def test_unreadable_jwk_set_defers_and_is_read_again() -> None:
    """Deliveries do not wait for a server that failed last time, and it is not requested by each delivery."""
    shop = Publishing(DocumentIssue(text="answered 503"))
    encryption = shop.encryption()
    assert "https://shop.example/jwks cannot be read: answered 503" in await why(encryption, asked())
    shop.answers = None
    assert "answered 503" in await why(encryption, asked())
    assert shop.read == 1
    shop.now += RETRY_SECONDS
    assert "answered 503" in await why(encryption, asked()), "although it hangs"
    await settled(lambda: shop.read == 2)
    shop.publish(P256)
    await settled(shop.more.is_set)
    assert await kid(encryption, asked(), made("P-256")) == "first"
    assert shop.read == 2


async def test_last_jwk_set_is_kept_while_it_is_unreadable() -> None:
    """A healthy client is not delayed by its JWK Set."""
    shop, encryption = await after_first_read()
    shop.now, shop.answers = shop.now + DEFAULT_FRESH_SECONDS, DocumentIssue(text="answered 503")
    for _ in range(3):
        assert await kid(encryption, asked(), made("P-256")) == "first"
        shop.now += RETRY_SECONDS
    await settled(lambda: shop.read == 3)


async def test_jwk_set_without_a_suitable_key_defers() -> None:
    """It is read again soon, for any Cache-Control, and other algorithms of that set are not affected."""
    shop, encryption = await after_first_read(max_age=86_400.0)
    rsa = asked(alg=KeyManagement.RSA_OAEP)
    assert "has no key for RSA-OAEP: key 'first' is of the type EC" in await why(encryption, rsa)
    shop.publish(P256, public(made("RSA"), kid="rsa"))
    shop.now += RETRY_SECONDS
    assert await kid(encryption, rsa, made("RSA")) == "rsa"
    assert await kid(encryption, asked(), made("P-256")) == "first"


async def test_invalid_key_is_reported() -> None:
    """The library's refusal is a reason too."""
    broken = asked(keys({"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43}))
    assert "its jwks has a key that is no EC key" in await why(Publishing().encryption(), broken)


async def test_400_rereads_the_keys_at_a_limited_rate() -> None:
    """Until then the 400 is not a refusal; a client that refuses everything is read every five minutes."""
    shop, encryption = await after_first_read()
    shop.now += 1
    shop.answers = None
    assert "are read again" in str(encryption.explain_rejection(asked()))
    assert "are read again" in str(encryption.explain_rejection(asked()))
    waiting = asyncio.create_task(kid(encryption, asked(), made("P-384")))
    await settled(lambda: shop.read == 2)
    shop.publish(P384)
    assert await waiting == "second"
    assert encryption.explain_rejection(asked()) is None
    shop.now += DOUBT_INTERVAL_SECONDS - 1
    assert encryption.explain_rejection(asked()) is None
    assert shop.read == 2
    shop.now += 1
    assert encryption.explain_rejection(asked()) is not None
    await settled(lambda: shop.read == 3)
    assert encryption.explain_rejection(asked()) is None


async def test_400_is_a_refusal_once_the_jwk_set_was_read() -> None:
    """While it is unreadable, the cause may be internal, for any number of 400 responses."""
    shop, encryption = await after_first_read()
    shop.now, shop.answers = shop.now + 1, DocumentIssue(text="answered 503")
    encryption.explain_rejection(asked())
    for _ in range(3):
        await settled(lambda: True)
        assert "cannot be read: answered 503" in str(encryption.explain_rejection(asked()))
        shop.now += RETRY_SECONDS
        assert await kid(encryption, asked(), made("P-256")) == "first"
    shop.publish(P256)
    shop.now += RETRY_SECONDS
    await kid(encryption, asked(), made("P-256"))
    await settled(lambda: encryption.explain_rejection(asked()) is None)


async def test_400_without_a_used_key_rereads_nothing() -> None:
    """Another worker's delivery was answered."""
    assert Publishing().encryption().explain_rejection(asked()) is None


async def test_cache_of_jwk_sets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used set is dropped, and read again when needed."""
    monkeypatch.setattr(client_encryption, "MAX_SETS", 2)
    shop = Publishing()
    shop.publish(P256)
    encryption = shop.encryption()
    for name in ("a", "b", "a", "c", "a", "b"):
        place = ClientKeysSource(uri=f"https://{name}.example/jwks", route=Route())
        await kid(encryption, asked(place), made("P-256"))
    assert shop.read == 4


async def test_closing_cancels_reads() -> None:
    """The service does not wait for an unresponsive client."""
    shop = Publishing()
    encryption = shop.encryption()
    waiting = asyncio.create_task(encryption.encrypt(SHOP, asked(), TOKEN))
    await settled(lambda: shop.read == 1)
    await encryption.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# ── The encryption key is selected from a client's JWK Set; if none fits, the reason is reported ─────────────────────


def rsa(bits: int = 2048, e: bytes = b"\x01\x00\x01", **more: object) -> dict[str, Any]:
    number = base64.urlsafe_b64encode(((1 << (bits - 1)) + 1).to_bytes((bits + 7) // 8)).decode().rstrip("=")
    return {"kty": "RSA", "n": number, "e": base64.urlsafe_b64encode(e).decode().rstrip("="), **more}


EC = {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}


def chosen(alg: KeyManagement, *jwks: dict[str, Any]) -> str | None:
    """Return the `kid` of the selected key."""
    keys = read_jwks({"keys": list(jwks)})
    assert not isinstance(keys, str)
    key = encryption_key(keys, alg)
    assert not isinstance(key, str), key
    return key.kid


def why_none(alg: KeyManagement, *jwks: dict[str, Any]) -> str:
    keys = read_jwks({"keys": list(jwks)})
    assert not isinstance(keys, str)
    why = encryption_key(keys, alg)
    assert isinstance(why, str)
    return why


def test_encryption_key_is_selected() -> None:
    """By `use` first, then by `alg`; of two equal keys the first."""
    sig, both, enc = rsa(kid="s", use="sig"), rsa(kid="b"), rsa(kid="e", use="enc")
    exact = rsa(kid="x", use="enc", alg="RSA-OAEP-256")
    assert chosen(KeyManagement.RSA_OAEP, sig, both, EC) == "b"
    assert chosen(KeyManagement.RSA_OAEP, sig, both, enc, rsa(kid="e2", use="enc")) == "e"
    assert chosen(KeyManagement.RSA_OAEP_256, enc, exact) == "x"
    assert chosen(KeyManagement.ECDH_ES, exact, EC | {"kid": "ec"}) == "ec"
    assert chosen(KeyManagement.ECDH_ES_A256KW, {"kty": "OKP", "crv": "X25519", "x": "AA"}) is None


@pytest.mark.parametrize(
    ("alg", "jwk", "words"),
    [
        ("RSA-OAEP", rsa(kid="s", use="sig"), '\'s\' has "use": "sig"'),
        ("RSA-OAEP", EC, "a key without kid is of the type EC"),
        ("ECDH-ES", rsa(), "is of the type RSA"),
        ("RSA-OAEP", rsa(alg="RSA-OAEP-256"), "is for RSA-OAEP-256"),
        ("RSA-OAEP", rsa(key_ops=["verify"]), '"key_ops"'),
        ("RSA-OAEP", rsa(d="AA"), "private half"),
        ("RSA-OAEP", rsa(1024), "1024 bits, not 2048 to 8192"),
        ("RSA-OAEP", rsa(16384), "16384 bits"),
        ("RSA-OAEP", rsa(e=b"\x01" * 9), "exponent"),
        ("RSA-OAEP", {"kty": "RSA", "e": "AQAB"}, 'lacks "n"'),
        ("RSA-OAEP", {"kty": "RSA", "n": "é", "e": "AQAB"}, '"n" that is no base64url'),
        ("RSA-OAEP", rsa() | {"e": "é" + "AQAB" * 90}, '"e" that is no base64url'),
        ("ECDH-ES", EC | {"crv": "secp256k1"}, "on the curve secp256k1"),
        ("ECDH-ES", {"kty": "OKP", "crv": "Ed25519", "x": "AA"}, "on the curve Ed25519"),
        ("ECDH-ES", {"kty": ["x"]}, "of the type"),
    ],
)
def test_unsuitable_key_is_reported_with_its_reason(alg: str, jwk: dict[str, Any], words: str) -> None:
    """The client must correct it."""
    assert words in why_none(KeyManagement(alg), jwk)


@pytest.mark.parametrize("empty", [None, "", []], ids=["null", "text", "list"])
def test_an_empty_member_of_a_key_is_absent(empty: object) -> None:
    """An empty member does not publish a private half."""
    odd = dict.fromkeys(("use", "alg", "key_ops", "d", "p", "oth", "x5c"), empty)
    assert chosen(KeyManagement.RSA_OAEP, {**rsa(kid="k"), **odd}) == "k"


def test_a_set_without_a_key_says_so() -> None:
    """Of very many keys the first are listed."""
    assert why_none(KeyManagement.RSA_OAEP) == "has no key, and RSA-OAEP needs one"
    assert why_none(KeyManagement.RSA_OAEP, *[EC] * 9).endswith("; and 4 more")


@pytest.mark.parametrize("document", [None, [], "x", {"keys": {}}, {}])
def test_invalid_jwk_set_is_reported(document: object) -> None:
    """It is not read as a set without keys."""
    assert "JWK Set" in str(read_jwks(document))
    assert public_jwks(document) == {}


def test_key_operations_that_encrypt_are_enough() -> None:
    """RFC 7517 §4.3 has a name for each way."""
    for operation in ("encrypt", "wrapKey"):
        assert chosen(KeyManagement.RSA_OAEP, rsa(kid="k", key_ops=[operation, "verify"])) == "k"
    for operation in ("deriveKey", "deriveBits"):
        assert chosen(KeyManagement.ECDH_ES, EC | {"kid": "k", "key_ops": [operation]}) == "k"


def test_only_public_members_are_kept() -> None:
    """If a private half was published, only that fact is kept; read again, it is the same."""
    whole = {"keys": [rsa(d="secret", p="secret", x5c=["AAAA"], kid="k", use="enc", key_ops=["wrapKey"]), 7]}
    kept = public_jwks(whole)
    assert "secret" not in str(kept)
    assert "x5c" not in str(kept)
    assert public_jwks(kept) == kept
    assert read_jwks(kept) == read_jwks(whole)
    assert "private half" in why_none(KeyManagement.RSA_OAEP, *kept["keys"])  # type: ignore[misc]


# ── A different library decrypts the tokens, and notifier's test vectors ─────────────────────────────────────────────


SIGNED_TOKEN = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"
ISS = "https://id.example.com"
CURVES = ("P-256", "P-384", "P-521", "X25519", "X448")
SPLIT = tuple((alg, kind) for alg in KeyManagement for kind in (("RSA",) if alg.startswith("RSA") else CURVES))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["source"])
def test_published_token_and_a_new_one_for_its_key_are_decrypted(vector: dict[str, Any]) -> None:
    """RFC 7516 and 7520 verify the verifier. The algorithm of the example also selects the key."""
    published = JWK(**vector["key"])
    header, plaintext = opened(vector["token"], published)
    assert plaintext == vector["plaintext"]
    alg, enc = KeyManagement(header["alg"]), ContentEncryption(header["enc"])
    key = encryption_key(keys(public(published)), alg)
    assert not isinstance(key, str)
    assert opened(compact_encrypter(key, alg, enc)(SIGNED_TOKEN, None, ISS), published)[1] == SIGNED_TOKEN


@pytest.mark.parametrize(("alg", "kind"), SPLIT)
def test_every_algorithm_pair_is_decrypted_by_another_library(alg: KeyManagement, kind: str) -> None:
    """B16, B17: the header has `cty: JWT` (RFC 7519 §5.2), the `typ` of the token, the `kid` and `iss`."""
    [key] = keys(public(made(kind), kid="e1", use="enc"))
    for enc in ContentEncryption:
        header, content = opened(compact_encrypter(key, alg, enc)(SIGNED_TOKEN, "logout+jwt", ISS), made(kind))
        assert content == SIGNED_TOKEN
        header.pop("epk", None)
        assert header == {"alg": alg, "enc": enc, "cty": "JWT", "typ": "logout+jwt", "kid": "e1", "iss": ISS}


def test_tokens_share_no_secret() -> None:
    """A new content key, and a new ephemeral key, for each."""
    [key] = keys(public(made("P-256")))
    encrypt = compact_encrypter(key, KeyManagement.ECDH_ES, ContentEncryption.A128CBC_HS256)
    first, second = (encrypt(SIGNED_TOKEN, None, ISS) for _ in range(2))
    assert opened(first, made("P-256"))[0]["epk"] != opened(second, made("P-256"))[0]["epk"]
    assert first.split(".")[2:] != second.split(".")[2:]
    assert "kid" not in opened(first, made("P-256"))[0]
    assert "typ" not in opened(first, made("P-256"))[0]


def test_another_key_decrypts_nothing() -> None:
    """Otherwise the other tests would prove nothing."""
    [key] = keys(public(made("RSA")))
    token = compact_encrypter(key, KeyManagement.RSA_OAEP, ContentEncryption.A256GCM)(SIGNED_TOKEN, None, ISS)
    with pytest.raises(InvalidJWEData):
        opened(token, JWK.generate(kty="RSA", size=2048))


@pytest.mark.parametrize(
    ("jwk", "words"),
    [
        ({"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43}, "is no EC key"),
        ({"kty": "EC", "crv": "P-256", "x": "%", "y": "A" * 43}, 'has "x" that is no base64url'),
        ({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}, 'has "x" of 3 bytes, and P-256 needs 32'),
        ({"kty": "OKP", "crv": "X25519", "x": "AAAA"}, 'has "x" of 3 bytes, and X25519 needs 32'),
    ],
)
def test_point_off_the_curve_is_refused(jwk: dict[str, str], words: str) -> None:
    """It is refused before any computation with it."""
    with pytest.raises(ValueError, match=words):
        compact_encrypter(keys(jwk)[0], KeyManagement.ECDH_ES, ContentEncryption.A128GCM)


def test_large_jwk_set_is_refused() -> None:
    """Its owner chooses the size, and the keys of 10,000 clients may be in memory."""
    assert isinstance(read_jwks({"keys": [EC] * MAX_KEYS}), tuple)
    assert read_jwks({"keys": [EC] * (MAX_KEYS + 1)}) == "has more than 100 keys"
    assert read_jwks({"keys": [EC | {"kid": "k" * 4000}] * 17}) == "is larger than 64 KiB"
    assert isinstance(read_jwks({"keys": [EC | {"x5c": ["A" * 8000]}] * MAX_KEYS}), tuple), "this is not kept"
    [key] = keys(EC | {"kid": "k" * 5000, "key_ops": ["deriveKey", "x" * 5000, 7]})
    assert (key.kid, key.key_ops) == (None, ("deriveKey",))


def test_only_used_keys_of_a_set_are_kept() -> None:
    """One for each algorithm. Without any the first, whose fault is reported."""
    signing = rsa(kid="s", use="sig")
    whole = keys(signing, rsa(kid="r"), rsa(kid="o", use="enc", alg="RSA-OAEP"), EC | {"kid": "e"}, EC | {"kid": "f"})
    assert [key.kid for key in keep_used_keys(whole)] == ["o", "r", "e"]
    for alg in KeyManagement:
        assert encryption_key(keep_used_keys(whole), alg) == encryption_key(whole, alg)
    unused = keep_used_keys(keys(signing, signing | {"kid": "t"}))
    assert [key.kid for key in unused] == ["s"]
    assert keep_used_keys(()) == ()
