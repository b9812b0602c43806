"""Reading what an issuer publishes, from real sockets: bounded in size and time, over https, and without redirects."""

import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from notifier.model.client import EgressPolicy, TlsFiles
from notifier.network.http.issuer_document import IssuerDocument, UnreadDocument, issuer_egress, metadata_uri
from notifier.network.http.issuer_documents import BODY_LIMIT, DocumentReader
from tests.support.behaviours import Behaviour, hang, raw
from tests.support.certificates import authority
from tests.support.receivers import scripted

OPEN = issuer_egress(EgressPolicy(allow_http=True))
SYSTEM = TlsFiles()


async def read(
    uri: str, egress: EgressPolicy = OPEN, tls: TlsFiles = SYSTEM, within: float = 20.0
) -> IssuerDocument | UnreadDocument:
    reader = DocumentReader()
    try:
        return await reader.read(uri, egress=egress, tls=tls, within=within)
    finally:
        await reader.close()


def ok(body: bytes) -> Behaviour:
    head = b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: %d\r\n\r\n" % len(body)
    return raw(head + body)


def refusal(found: IssuerDocument | UnreadDocument) -> str:
    assert isinstance(found, UnreadDocument)
    return found.text


async def test_the_document_and_the_servers_clock() -> None:
    """The `Date` header is what the doctor compares clocks by."""
    async with scripted(ok(b'{"keys": []}')) as issuer:
        assert await read(issuer.url) == IssuerDocument(content={"keys": []}, date=784111777.0)


async def test_a_large_document_is_read_whole() -> None:
    """A hundred RSA keys with their certificates are 300 KiB."""
    keys = ["x" * 1000] * 500
    async with scripted(ok(json.dumps(keys).encode())) as issuer:
        found = await read(issuer.url)
    assert isinstance(found, IssuerDocument)
    assert found.content == keys


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (raw(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"), "answered 503"),
        (ok(b"<html>"), "not JSON"),
        (ok(json.dumps("x" * BODY_LIMIT).encode()), "larger than"),
        (raw(b"nonsense\r\n\r\n"), ""),
    ],
)
async def test_what_is_no_document_is_said(behaviour: Behaviour, words: str) -> None:
    """Each in words, and none of them as an empty set."""
    async with scripted(behaviour) as issuer:
        found = await read(issuer.url)
    assert words in refusal(found)


async def test_one_that_never_answers_is_given_up() -> None:
    """At the deadline."""
    async with scripted(hang()) as issuer:
        assert "within 0.2 s" in refusal(await read(issuer.url, within=0.2))


async def test_private_addresses_are_allowed_and_clear_text_and_metadata_are_not() -> None:
    """The operator wrote the address; https is asked for unless allowed otherwise, and no metadata service is read."""
    closed = issuer_egress(EgressPolicy())
    assert "egress.allow_http" in refusal(await read("http://127.0.0.1:9/jwks", closed))
    assert "metadata" in refusal(await read("https://169.254.169.254/jwks", closed))
    assert "egress.deny" in refusal(
        await read("https://127.0.0.1:9/jwks", issuer_egress(EgressPolicy(deny=(ip_network("127.0.0.0/8"),))))
    )


async def test_an_authority_of_the_issuers_own(tmp_path: Path) -> None:
    """`issuers.<iss>.tls`: trusted where it is named, refused where it is not."""
    ca = authority(tmp_path)
    async with scripted(ok(b"{}"), tls=ca.server(), host="localhost") as issuer:
        assert isinstance(await read(issuer.url, tls=TlsFiles(ca_file=ca.ca_file)), IssuerDocument)
        refused = await read(issuer.url)
    assert "certificate" in refusal(refused)


def test_the_metadata_is_below_the_issuer() -> None:
    """Discovery 1.0 §4.1: with and without a slash at the end, tenants' paths kept."""
    assert metadata_uri("https://id.example/t/1/") == "https://id.example/t/1/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("headers", "max_age"),
    [
        (b"", None),
        (b"Cache-Control: public, max-age=600\r\n", 600.0),
        (b"cache-control: Max-Age=600\r\nAge: 100\r\n", 500.0),
        (b"Cache-Control: max-age=600\r\nAge: 1000\r\n", 0.0),
        (b"Cache-Control: public\r\nCache-Control: max-age=60\r\n", 60.0),
        (b"Cache-Control: s-maxage=5\r\n", None),
        (b"Cache-Control: max-age=600, no-cache\r\n", 0.0),
        (b"Cache-Control: no-store\r\n", 0.0),
        (b"Cache-Control: max-age=-1\r\nAge: x\r\n", None),
    ],
)
async def test_how_long_a_document_may_be_kept(headers: bytes, max_age: float | None) -> None:
    """As its Cache-Control says to a cache that is not shared (RFC 9111 §5.2.2)."""
    answer = raw(b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\n{}" % headers)
    async with scripted(answer) as client:
        found = await read(client.url)
    assert isinstance(found, IssuerDocument)
    assert found.max_age == max_age


async def test_a_document_behind_a_proxy() -> None:
    """The proxy looks the name up, and may be where no client may."""
    reader = DocumentReader()
    policy = EgressPolicy(allow_http=True)
    try:
        async with scripted(ok(b"{}")) as proxy:
            uri = "http://keys.example/jwks"
            found = await reader.read(uri, egress=policy, tls=SYSTEM, within=20.0, proxy=proxy.origin)
            assert isinstance(found, IssuerDocument)
            assert [request.target for request in proxy.requests] == [uri]
            denied = await reader.read(uri, egress=EgressPolicy(), tls=SYSTEM, within=20.0, proxy=proxy.origin)
            assert "http" in refusal(denied)
    finally:
        await reader.close()
