"""Clients' keys are read when needed and kept; one that cannot be had puts off that client's deliveries alone."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from jwcrypto.jwk import JWK

from notifier.model.client import Client, ClientKeysPlace, ContentEncryption, Encryption, KeyManagement, Route
from notifier.model.errors import OurFault
from notifier.model.outcome import Cause
from notifier.network.http.issuer_document import IssuerDocument, UnreadDocument
from notifier.tokens import client_encryption
from notifier.tokens.client_encryption import AGAIN, DOUBTED_EVERY, FRESH, ClientEncryption
from tests.tokens.encryption_keys import keys, made, opened, public

PLACE = ClientKeysPlace(uri="https://shop.example/jwks", route=Route())
SHOP = Client(iss="https://id.example.com", client_id="shop", backchannel_logout_uri="https://shop.example/bc")
TOKEN = "a.b.c"


def asked(
    keys: Any = PLACE, alg: KeyManagement = KeyManagement.ECDH_ES, enc: ContentEncryption = ContentEncryption.A128GCM
) -> Encryption:
    return Encryption(alg=alg, enc=enc, keys=keys)


@dataclass(slots=True)
class Publishing:
    """A client that publishes its keys, and a clock. `answers` None: it hangs until it has some."""

    answers: IssuerDocument | UnreadDocument | None = None
    now: float = 1000.0
    read: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, *jwks: dict[str, Any], max_age: float | None = None) -> None:
        self.answers = IssuerDocument(content={"keys": list(jwks)}, max_age=max_age)
        self.more.set()

    async def give(self, place: ClientKeysPlace) -> IssuerDocument | UnreadDocument:
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
    with pytest.raises(OurFault) as caught:
        await encryption.encrypt(SHOP, wanted, TOKEN)
    assert caught.value.cause is Cause.ENCRYPTION
    return str(caught.value)


async def settled(condition: Callable[[], bool]) -> None:
    """Let what was begun end."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert condition()


P256 = public(made("P-256"), kid="first", use="enc")
P384 = public(made("P-384"), kid="second", use="enc")


async def test_a_set_is_read_once_for_all_who_wait_and_kept_as_long_as_it_says() -> None:
    """By its Cache-Control, an hour without, and a minute at least."""
    for max_age, fresh in ((None, FRESH), (600.0, 600.0), (0.0, 60.0), (1e9, 86_400.0)):
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


async def test_keys_of_the_registration_are_read_nowhere() -> None:
    """And a change of the registration is another set."""
    shop = Publishing()
    encryption = shop.encryption()
    assert await kid(encryption, asked(keys(P256)), made("P-256")) == "first"
    assert await kid(encryption, asked(keys(P384)), made("P-384")) == "second"
    assert encryption.doubted(asked(keys(P384))) is None
    assert "its jwks has no key, and ECDH-ES needs one" in await why(encryption, asked(()))
    assert shop.read == 0


async def test_what_cannot_be_read_defers_and_is_tried_again() -> None:
    """Nobody waits for a place that did not answer last time, and it is not asked at each delivery."""
    shop = Publishing(UnreadDocument(text="answered 503"))
    encryption = shop.encryption()
    assert "https://shop.example/jwks cannot be read: answered 503" in await why(encryption, asked())
    shop.answers = None
    assert "answered 503" in await why(encryption, asked())
    assert shop.read == 1
    shop.now += AGAIN
    assert "answered 503" in await why(encryption, asked()), "although it hangs"
    await settled(lambda: shop.read == 2)
    shop.publish(P256)
    await settled(shop.more.is_set)
    assert await kid(encryption, asked(), made("P-256")) == "first"
    assert shop.read == 2


async def test_the_last_set_is_kept_while_it_cannot_be_read_again() -> None:
    """A client that is well is not held up by its JWK Set."""
    shop = Publishing()
    shop.publish(P256)
    encryption = shop.encryption()
    await kid(encryption, asked(), made("P-256"))
    shop.now, shop.answers = shop.now + FRESH, UnreadDocument(text="answered 503")
    for _ in range(3):
        assert await kid(encryption, asked(), made("P-256")) == "first"
        shop.now += AGAIN
    await settled(lambda: shop.read == 3)


async def test_a_set_without_a_fitting_key_defers_until_there_is_one() -> None:
    """It is looked for soon, whatever Cache-Control says, and other algorithms of that set are not held up."""
    shop = Publishing()
    shop.publish(P256, max_age=86_400.0)
    encryption = shop.encryption()
    await kid(encryption, asked(), made("P-256"))
    rsa = asked(alg=KeyManagement.RSA_OAEP)
    assert "has no key for RSA-OAEP: key 'first' is of the type EC" in await why(encryption, rsa)
    shop.publish(P256, public(made("RSA"), kid="rsa"))
    shop.now += AGAIN
    assert await kid(encryption, rsa, made("RSA")) == "rsa"
    assert await kid(encryption, asked(), made("P-256")) == "first"


async def test_a_key_that_is_none_is_named() -> None:
    """What the library refuses is a reason too."""
    broken = asked(keys({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}))
    assert "its jwks has a key that is no EC key" in await why(Publishing().encryption(), broken)


async def test_after_a_400_the_keys_are_read_again_at_once_and_not_too_often() -> None:
    """Until they were, the 400 is no refusal; a client that refuses everything is asked every five minutes."""
    shop = Publishing()
    shop.publish(P256)
    encryption = shop.encryption()
    await kid(encryption, asked(), made("P-256"))
    shop.now += 1
    shop.answers = None
    assert "are read again" in str(encryption.doubted(asked()))
    assert "are read again" in str(encryption.doubted(asked()))
    waiting = asyncio.create_task(kid(encryption, asked(), made("P-384")))
    await settled(lambda: shop.read == 2)
    shop.publish(P384)
    assert await waiting == "second"
    assert encryption.doubted(asked()) is None
    shop.now += DOUBTED_EVERY - 1
    assert encryption.doubted(asked()) is None
    assert shop.read == 2
    shop.now += 1
    assert encryption.doubted(asked()) is not None
    await settled(lambda: shop.read == 3)
    assert encryption.doubted(asked()) is None


async def test_a_400_counts_once_the_set_that_was_asked_for_was_read() -> None:
    """While it cannot be, the fault may be ours, however often the client says 400."""
    shop = Publishing()
    shop.publish(P256)
    encryption = shop.encryption()
    await kid(encryption, asked(), made("P-256"))
    shop.now, shop.answers = shop.now + 1, UnreadDocument(text="answered 503")
    encryption.doubted(asked())
    for _ in range(3):
        await settled(lambda: True)
        assert "cannot be read: answered 503" in str(encryption.doubted(asked()))
        shop.now += AGAIN
        assert await kid(encryption, asked(), made("P-256")) == "first"
    shop.publish(P256)
    shop.now += AGAIN
    await kid(encryption, asked(), made("P-256"))
    await settled(lambda: encryption.doubted(asked()) is None)


async def test_a_key_that_was_never_used_is_not_doubted() -> None:
    """Another worker's delivery came back."""
    assert Publishing().encryption().doubted(asked()) is None


async def test_sets_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was used longest ago is dropped, and read again when it is needed."""
    monkeypatch.setattr(client_encryption, "MOST_SETS", 2)
    shop = Publishing()
    shop.publish(P256)
    encryption = shop.encryption()
    for name in ("a", "b", "a", "c", "a", "b"):
        place = ClientKeysPlace(uri=f"https://{name}.example/jwks", route=Route())
        await kid(encryption, asked(place), made("P-256"))
    assert shop.read == 4


async def test_closing_ends_what_is_being_read() -> None:
    """The service does not wait for a client that hangs."""
    shop = Publishing()
    encryption = shop.encryption()
    waiting = asyncio.create_task(encryption.encrypt(SHOP, asked(), TOKEN))
    await settled(lambda: shop.read == 1)
    await encryption.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
