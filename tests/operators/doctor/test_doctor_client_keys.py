"""The doctor reads the keys of clients whose tokens are encrypted, and names the one it would take, or the fault."""

from typing import Any

from notifier.model.client import Client, ClientKeysPlace, Encryption, KeyManagement, Route
from notifier.network.http.issuer_document import IssuerDocument, UnreadDocument
from notifier.operators.doctor.doctor import Finding
from notifier.operators.doctor.doctor_keys import examine_keys, judge_jwks, keys_elsewhere
from tests.tokens.encryption_keys import keys, made, public

PLACE = ClientKeysPlace(uri="https://shop.example/jwks", route=Route())
KEY = public(made("RSA"), kid="e1", use="enc")


def client(client_id: str, keys: Any = PLACE, alg: KeyManagement = KeyManagement.RSA_OAEP) -> Client:
    return Client(
        iss="https://id.example.com",
        client_id=client_id,
        backchannel_logout_uri="https://shop.example/bc",
        encryption=None if keys is None else Encryption(alg=alg, keys=keys),
    )


async def findings(document: IssuerDocument | UnreadDocument, *clients: Client) -> list[tuple[str, str, str]]:
    async def read(_place: ClientKeysPlace) -> IssuerDocument | UnreadDocument:
        return document

    return [_told(each) for each in await examine_keys(PLACE, clients, read)]


def _told(finding: Finding) -> tuple[str, str, str]:
    return finding.subject, str(finding.level), finding.text


def test_each_place_is_read_once() -> None:
    """For all clients whose keys are there; clients without encryption have none."""
    one, two = client("shop"), client("mail")
    assert keys_elsewhere([one, client("plain", None), two, client("own", keys(KEY))]) == {PLACE: [one, two]}


async def test_the_key_that_would_be_taken_is_named() -> None:
    """With the algorithms, so that the client's operator can compare."""
    [(subject, level, text)] = await findings(IssuerDocument(content={"keys": [KEY]}), client("shop"))
    assert (subject, level) == ("shop", "ok")
    assert text == "its tokens are encrypted to its key 'e1' by RSA-OAEP and A128CBC-HS256"


async def test_a_set_that_cannot_be_read_fails_all_its_clients() -> None:
    """Their logouts wait, and the advice says so."""
    for document, words in (
        (UnreadDocument(text="answered 503"), "https://shop.example/jwks cannot be read: answered 503"),
        (IssuerDocument(content=[]), "cannot be read: is no JWK Set"),
    ):
        found = await findings(document, client("shop"), client("mail"))
        assert [(subject, level) for subject, level, _ in found] == [("shop", "failed"), ("mail", "failed")]
        assert words in found[0][2]


async def test_a_set_without_a_fitting_key_fails_the_client_alone() -> None:
    """Another one may ask for what is there."""
    document = IssuerDocument(content={"keys": [KEY]})
    found = await findings(document, client("shop"), client("ec", alg=KeyManagement.ECDH_ES))
    assert [level for _, level, _ in found] == ["ok", "failed"]
    assert "has no key for ECDH-ES: key 'e1' is of the type RSA" in found[1][2]


def test_keys_of_the_registration_need_no_network() -> None:
    """Whether they fit is seen offline."""
    own = [client("good", keys(KEY)), client("bad", keys(KEY), KeyManagement.ECDH_ES), client("plain", None)]
    assert [(each.subject, str(each.level)) for each in judge_jwks(own)] == [("good", "ok"), ("bad", "failed")]
