"""Clients registered for encrypted tokens receive a JWE or nothing."""

from base64 import urlsafe_b64encode
from collections.abc import Mapping

import pytest

from notifier.delivery.channels import BackChannel
from notifier.delivery.ports import Encrypter, Signer
from notifier.model.client import Algorithm, Client, ClientKeysSource, Encryption, KeyManagement, Route
from notifier.model.delivery import Delivery
from notifier.model.errors import InternalFault
from notifier.model.outcome import Cause, HttpResponse, Refused
from notifier.model.request import PreparedRequest
from notifier.network.http.issuer_document import DocumentIssue
from notifier.network.http.response_text import answer_text
from notifier.tokens.client_encryption import ClientEncryption
from tests.delivery.worker_harness import ISS, PlainSigner, client
from tests.tokens.encryption_keys import keys, made, opened, public

DELIVERY = Delivery(id="d", event_id="e", id_given=True, iss=ISS, client_id="shop", sub="alice", sid="s1")
ASKED = Encryption(alg=KeyManagement.ECDH_ES, keys=keys(public(made("P-256"), kid="e1")))


async def nothing(place: ClientKeysSource) -> DocumentIssue:
    return DocumentIssue(text=f"answered 503 at {place.uri}")


class CompactSigner:
    """Returns a token in compact form."""

    async def sign(self, iss: str, alg: Algorithm, typ: str | None, claims: Mapping[str, object]) -> str:
        return ".".join(urlsafe_b64encode(each.encode()).decode() for each in (iss, alg, str(claims)))


def channel(encrypter: Encrypter | None, signer: Signer | None = None) -> BackChannel:
    return BackChannel(signer or PlainSigner(), clock=lambda: 1000.0, new_jti=lambda: "j1", encrypter=encrypter)


def encryption() -> ClientEncryption:
    return ClientEncryption(nothing, lambda: 0.0)


async def test_the_signed_token_is_inside() -> None:
    """It equals the clear token of another client; a client without encryption needs no encrypter."""
    plain = await channel(None).prepare(DELIVERY, client("shop"))
    push = await channel(encryption()).prepare(DELIVERY, client("shop", encryption=ASKED))
    assert isinstance(plain, PreparedRequest)
    assert isinstance(push, PreparedRequest)
    assert plain.body is not None
    assert push.body is not None
    header, inside = opened(push.body.decode().removeprefix("logout_token="), made("P-256"))
    assert f"logout_token={inside}".encode() == plain.body
    assert (header["iss"], header["typ"], header["cty"]) == (ISS, "logout+jwt", "JWT")


@pytest.mark.parametrize("encrypter", [None, encryption()])
async def test_without_a_key_there_is_no_token(encrypter: Encrypter | None) -> None:
    """The client's deliveries are deferred, and nothing is sent in clear."""
    elsewhere = Encryption(
        alg=KeyManagement.ECDH_ES, keys=ClientKeysSource(uri="https://shop.example/jwks", route=Route())
    )
    with pytest.raises(InternalFault) as caught:
        await channel(encrypter).prepare(DELIVERY, client("shop", encryption=elsewhere))
    assert caught.value.cause is Cause.ENCRYPTION


async def test_quoted_tokens_are_removed_from_the_answer() -> None:
    """The client may quote the token that it has decrypted."""
    push = await channel(encryption(), CompactSigner()).prepare(DELIVERY, client("shop", encryption=ASKED))
    assert isinstance(push, PreparedRequest)
    request = push.to_request(client("shop"), "https://shop.example.com", 1.0, new_connection=False)
    for token in push.secret.split(" "):
        part = max(token.split("."), key=len)
        assert part not in answer_text(f"bad token {part}".encode(), request)
    assert len(push.secret.split(" ")) == 2


def refused(receiver: Client) -> str:
    outcome = channel(encryption()).read(HttpResponse(status=400, text="Bad Request"), receiver)
    assert isinstance(outcome, Refused)
    return outcome.text


def test_a_400_names_the_limit_of_a_known_receiver() -> None:
    """The dead letter names the limit of a known receiver, otherwise only the client's answer."""
    rsa = Encryption(alg=KeyManagement.RSA_OAEP_256, keys=())
    text = refused(client("shop", encryption=rsa, preset="mod_auth_openidc"))
    assert text.startswith("preset mod_auth_openidc takes encrypted tokens by RSA-OAEP alone, and the client")
    assert text.endswith("its answer: Bad Request")
    assert "takes no encrypted tokens" in refused(client("shop", encryption=rsa, preset="pac4j"))
    for receiver in (client("shop", encryption=rsa), client("shop", preset="mod_auth_openidc")):
        assert refused(receiver) == "Bad Request"
