"""TLS and client certificates of a client's route, on real sockets."""

import asyncio
import base64
import datetime as dt
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509.oid import ExtensionOID
from yarl import URL

from notifier.model.client import TlsFiles
from notifier.model.errors import ConfigurationError, InternalFault
from notifier.model.outcome import Cause, HttpResponse, Reason, TransportFailure
from notifier.network.counted_tls import CountedContext
from notifier.network.http import client_contexts
from notifier.network.http.pem_files import build_client_context, build_server_context
from notifier.network.http.transport import HttpTransport
from notifier.queues.rabbitmq.connection import _tls_context as broker_context
from notifier.settings.policies import ListenerTls
from notifier.tokens.key_files import KeySource, load_key
from tests.network.http.http_requests import PLENTY, SHORT, broken, opened, request
from tests.support import behaviours as do
from tests.support.certificates import ODD_CERTIFICATES, Authority, authority, odd_certificate
from tests.support.hanging_files import hanging
from tests.support.receivers import scripted

# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_ca_file_is_trusted_for_its_client_alone(
    transport: HttpTransport, ca: Authority, trusted: TlsFiles
) -> None:
    """Other clients trust neither this file nor the connection made with it."""
    async with scripted(tls=ca.server(), host="localhost") as receiver:
        assert await transport.post(request(receiver.url, tls=trusted)) == HttpResponse(status=200)
        assert await transport.post(request(receiver.url, tls=trusted)) == HttpResponse(status=200)
        wire = await transport.post(request(receiver.url))
    assert broken(wire) == (Reason.TLS, False)
    assert [received.connection for received in receiver.requests] == [1, 1]


async def test_an_intermediate_certificate_is_the_end_of_a_chain(
    transport: HttpTransport, ca: Authority, tmp_path: Path
) -> None:
    """If `ca_file` has it and not the root: on all versions of Python, as with 3.13 by default."""
    middle = ca.intermediate(tmp_path / "middle")
    async with scripted(tls=middle.server(), host="localhost") as receiver:
        assert await transport.post(request(receiver.url, tls=TlsFiles(ca_file=middle.ca_file))) == HttpResponse(
            status=200
        )


async def test_an_authority_without_key_usage_or_key_identifiers_is_accepted(ca: Authority) -> None:
    """As the authority of these tests, which Python 3.13 refuses by default. It holds for all contexts."""
    certificate = x509.load_pem_x509_certificate(ca.ca_file.read_bytes())
    assert not {ExtensionOID.KEY_USAGE, ExtensionOID.AUTHORITY_KEY_IDENTIFIER} & {
        each.oid for each in certificate.extensions
    }
    own = ca.issue("localhost")
    for context in (
        build_client_context(TlsFiles()),
        build_client_context(TlsFiles(ca_file=ca.ca_file)),
        build_server_context(ListenerTls(cert_file=own, key_file=own, client_ca_file=ca.ca_file)),
        broker_context(None, URL("amqps://broker.example")),
        broker_context(TlsFiles(ca_file=ca.ca_file), URL("amqps://broker.example")),
    ):
        assert isinstance(context, CountedContext)
        assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_mode is ssl.CERT_REQUIRED
    assert broker_context(None, URL("amqp://broker.example")) is None


async def test_an_unknown_authority_is_named_as_such(transport: HttpTransport, ca: Authority) -> None:
    """`tls`, not ambiguous: nothing was sent."""
    async with scripted(tls=ca.server()) as receiver:
        wire = await transport.post(request(receiver.url))
    assert broken(wire) == (Reason.TLS, False)
    assert isinstance(wire, TransportFailure)
    assert wire.text == "certificate: unable to get local issuer certificate"
    assert not receiver.requests


async def test_a_certificate_of_another_name_is_named_as_such(
    transport: HttpTransport, ca: Authority, trusted: TlsFiles
) -> None:
    """The name is checked, as is the address if the URI has one."""
    async with scripted(tls=ca.server("other.example"), host="localhost") as receiver:
        for host in ("localhost", "127.0.0.1"):
            wire = await transport.post(request(receiver.url.replace("localhost", host), tls=trusted))
            assert broken(wire) == (Reason.TLS, False)
            assert isinstance(wire, TransportFailure)
            assert f"not valid for '{host}'" in wire.text


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_tls_before_1_2_is_refused(transport: HttpTransport, ca: Authority, trusted: TlsFiles) -> None:
    """TLS 1.1 is not supported."""
    async with scripted(tls=ca.server(newest=ssl.TLSVersion.TLSv1_1)) as receiver:
        wire = await transport.post(request(receiver.url, tls=trusted))
    assert broken(wire)[0] in (Reason.TLS, Reason.CONNECT)
    assert not receiver.requests


NO_TLS = do.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n", close=True)


@pytest.mark.parametrize(
    ("behaviour", "reason", "text"),
    [
        (replace(NO_TLS, reads=False), Reason.TLS, "TLS: "),
        (do.hang(reads=False), Reason.TIMEOUT, "connected, but no TLS handshake within 0.3 s"),
        (do.reset(reads=False), Reason.TLS, "TLS: the server ended the connection in the handshake"),
        (do.close(reads=False), Reason.TLS, "TLS: the server ended the connection in the handshake"),
    ],
    ids=["an http port", "sends no hello", "resets", "closes"],
)
async def test_a_handshake_that_fails_is_not_ambiguous(
    transport: HttpTransport, trusted: TlsFiles, behaviour: do.Behaviour, reason: Reason, text: str
) -> None:
    """Nothing of the request was written. The deadline covers the handshake."""
    async with scripted(behaviour) as receiver:
        within = SHORT if reason is Reason.TIMEOUT else PLENTY
        wire = await transport.post(request(receiver.url.replace("http:", "https:"), tls=trusted, within=within))
        await receiver.until(lambda receiver: receiver.open == 0)
    assert broken(wire) == (reason, False)
    assert isinstance(wire, TransportFailure)
    assert wire.text.startswith(text)


def _no_goodbye(context: ssl.SSLContext, response: bytes) -> do.Behaviour:
    """Return the behaviour of a TLS server that answers one request with `response` and never sends close_notify."""

    async def run(peer: do.Peer) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secured = context.wrap_bio(incoming, outgoing, server_side=True)
        read = b""
        while b"logout_token" not in read:
            try:
                read += secured.read(65_536)
            except ssl.SSLWantReadError:
                await peer.send(outgoing.read())
                incoming.write(await peer.reader.read(65_536))
        secured.write(response)
        await peer.send(outgoing.read())
        await peer.gone()
        peer.close()

    return do.Behaviour(run=run, reads=False)


@pytest.mark.parametrize(
    ("response", "came"),
    [
        (b"", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n.", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", True),
    ],
    ids=["hangs", "hangs in the body", "answers"],
)
async def test_missing_close_notify_is_not_awaited(
    transport: HttpTransport, ca: Authority, trusted: TlsFiles, response: bytes, came: bool
) -> None:
    """asyncio alone would hold the socket for 30 s, and so thousands of them for one unresponsive client."""
    async with scripted(_no_goodbye(ca.server(), response)) as receiver:
        uri = receiver.url.replace("http:", "https:")
        wire = await transport.post(request(uri, tls=trusted, within=PLENTY if came else SHORT))
        assert isinstance(wire, HttpResponse) is came
        await receiver.until(lambda receiver: receiver.open == 0)
    assert transport.open_connections == 0


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_is_shown(transport: HttpTransport, ca: Authority, newest: ssl.TLSVersion) -> None:
    """Mutual TLS works with one file or two."""
    both = ca.issue("notifier")
    mutual = TlsFiles(ca_file=ca.ca_file, cert_file=both)
    apart = TlsFiles(ca_file=ca.ca_file, cert_file=both, key_file=Path(shutil.copy(both, both.with_name("key.pem"))))
    async with scripted(tls=ca.server(mutual=True, newest=newest)) as receiver:
        assert await transport.post(request(receiver.url, tls=mutual)) == HttpResponse(status=200)
        assert await transport.post(request(receiver.url, tls=apart)) == HttpResponse(status=200)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_missing_client_certificate_is_a_tls_fault(
    transport: HttpTransport, ca: Authority, trusted: TlsFiles, newest: ssl.TLSVersion
) -> None:
    """In TLS 1.3 the server's alert comes only after the request was written."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        refusal = asyncio.create_task(asyncio.to_thread(_refuse, server, ca.server(mutual=True, newest=newest)))
        wire = await transport.post(request(f"https://127.0.0.1:{server.getsockname()[1]}/", tls=trusted))
        await refusal
    assert broken(wire) == (Reason.TLS, newest is ssl.TLSVersion.TLSv1_3)
    assert isinstance(wire, TransportFailure)
    assert "ALERT" in wire.text


def _refuse(server: socket.socket, context: ssl.SSLContext) -> None:
    """Fail a handshake with a client without a certificate, as OpenSSL does; asyncio would send no alert."""
    connection, _ = server.accept()
    connection.settimeout(PLENTY)
    with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secured:
        with pytest.raises(ssl.SSLError):
            secured.do_handshake()
        secured.shutdown(socket.SHUT_WR)
        with socket.socket(fileno=secured.detach()) as plain:
            plain.settimeout(PLENTY)
            while plain.recv(65_536):
                pass


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_expired_certificate_of_ours_is_named(
    transport: HttpTransport, ca: Authority, newest: ssl.TLSVersion
) -> None:
    """Also where the server closes the connection without a word, and not while the server answers."""
    expired = TlsFiles(ca_file=ca.ca_file, cert_file=ca.issue("notifier", expired=True))
    async with scripted(tls=ca.server(mutual=True, newest=newest)) as receiver:
        wire = await transport.post(request(receiver.url, tls=expired))
    assert isinstance(wire, TransportFailure)
    assert wire.reason is Reason.TLS
    assert re.search(r"^notifier's certificate \S+/notifier-expired\.pem expired at 20\S+", wire.text)
    async with scripted(tls=ca.server()) as receiver:
        assert await transport.post(request(receiver.url, tls=expired)) == HttpResponse(status=200)


async def test_an_expired_certificate_behind_ours_is_not_the_reason(transport: HttpTransport, ca: Authority) -> None:
    """A chain may contain an expired cross-signed authority. The failure keeps its own reason."""
    files = TlsFiles(ca_file=ca.ca_file, cert_file=ca.issue_with_expired("notifier"))
    async with scripted(do.close(), tls=ca.server()) as receiver:
        wire = await transport.post(request(receiver.url, tls=files))
    assert isinstance(wire, TransportFailure)
    assert (wire.reason, "expired" in wire.text) == (Reason.DISCONNECTED, False)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_missing_or_broken_file_defers_the_delivery(
    transport: HttpTransport, ca: Authority, tmp_path: Path
) -> None:
    """A deferral with cause `tls_files`, and the text names the file."""
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for files in (
        TlsFiles(ca_file=tmp_path / "missing.pem"),
        TlsFiles(ca_file=nonsense),
        TlsFiles(cert_file=tmp_path / "missing.pem"),
        TlsFiles(cert_file=nonsense),
        TlsFiles(cert_file=ca.ca_file),
    ):
        with pytest.raises(InternalFault, match=r"missing\.pem|nonsense\.pem|ca\.pem") as caught:
            await transport.post(request("https://127.0.0.1:9/", tls=files))
        assert caught.value.cause is Cause.TLS_FILES


async def test_changed_tls_file_is_read_again(transport: HttpTransport, ca: Authority, tmp_path: Path) -> None:
    """The next request has the new authority; an unusable change keeps the old one."""
    file = tmp_path / "bundle.pem"
    files = TlsFiles(ca_file=file)
    other = authority(tmp_path / "other", "Other CA")
    async with scripted(tls=ca.server(), host="localhost") as receiver:
        with pytest.raises(InternalFault):
            await transport.post(request(receiver.url, tls=files))
        _replace(file, other.ca_file.read_text())
        assert broken(await transport.post(request(receiver.url, tls=files))) == (Reason.TLS, False)
        _replace(file, ca.ca_file.read_text())
        assert await transport.post(request(receiver.url, tls=files)) == HttpResponse(status=200)
        _replace(file, "half of a fi")
        assert await transport.post(request(receiver.url, tls=files)) == HttpResponse(status=200)
        _replace(file, other.ca_file.read_text())
        assert broken(await transport.post(request(receiver.url, tls=files))) == (Reason.TLS, False)


async def test_a_renewed_client_certificate_is_shown_by_the_next_request(
    transport: HttpTransport, ca: Authority, tmp_path: Path
) -> None:
    """Certificate and key are replaced together; the old connection is not used again."""
    shown: list[str] = []

    async def look(peer: do.Peer) -> None:
        [[(_, name)]] = peer.writer.get_extra_info("ssl_object").getpeercert()["subject"]
        shown.append(name)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    files = TlsFiles(ca_file=ca.ca_file, cert_file=tmp_path / "mine.pem")
    async with scripted(do.Behaviour(run=look), tls=ca.server(mutual=True), host="localhost") as receiver:
        for name in ("first", "first", "second"):
            _replace(tmp_path / "mine.pem", ca.issue(name).read_text())
            assert await transport.post(request(receiver.url, tls=files)) == HttpResponse(status=200)
    assert shown == ["first", "first", "second"]


@pytest.mark.parametrize("kind", ODD_CERTIFICATES)
async def test_an_odd_certificate_does_not_stop_the_renewal_of_others(ca: Authority, tmp_path: Path, kind: str) -> None:
    """OpenSSL loads it, and another parser may not: the next client's files are renewed at the same check."""
    contexts = client_contexts.TlsContexts(check_interval=0.0)
    odd, good = (TlsFiles(ca_file=ca.ca_file, cert_file=tmp_path / f"{name}.pem") for name in ("odd", "good"))
    for files, name in ((odd, "shop"), (good, "mail")):
        _replace(files.cert_file or Path(), ca.issue(name).read_text())
    before = [await contexts.context(files) for files in (odd, good)]
    _replace(tmp_path / "odd.pem", odd_certificate(kind))
    _replace(tmp_path / "good.pem", ca.issue("renewed").read_text())
    after = [await contexts.context(files) for files in (good, odd)]
    assert after[0] is not before[1]
    await contexts.close()


async def test_an_unexpected_fault_of_a_file_is_that_of_its_client(ca: Authority, tmp_path: Path) -> None:
    """Its deliveries are deferred with the cause `tls_files`, and the text names the files."""
    (tmp_path / "notifier.pem").write_text("nonsense")
    contexts = client_contexts.TlsContexts()
    with pytest.raises(InternalFault, match=r"notifier\.pem: cannot be used: RuntimeError$") as caught:
        await contexts.context(TlsFiles(ca_file=ca.ca_file, cert_file=_Unexplained(tmp_path / "notifier.pem")))
    assert caught.value.cause is Cause.TLS_FILES
    await contexts.close()


class _Unexplained(type(Path())):  # type: ignore[misc]  # Path itself has no subclasses before Python 3.12
    """A file that OpenSSL can open, and Python cannot, for a reason that nothing expects."""

    def open(self, *_: object, **__: object) -> NoReturn:
        """Raise an error that is no OSError."""
        raise RuntimeError("hush")


async def test_concurrent_requests_share_one_context(
    transport: HttpTransport, ca: Authority, trusted: TlsFiles
) -> None:
    """A first burst to a client opens connections that can be shared afterwards."""
    async with scripted(tls=ca.server()) as receiver:
        for _ in range(3):
            await asyncio.gather(*(transport.post(request(receiver.url, tls=trusted)) for _ in range(5)))
    assert receiver.connections == 5


async def test_contexts_of_very_many_clients_are_built_again(
    monkeypatch: pytest.MonkeyPatch, transport: HttpTransport, ca: Authority, tmp_path: Path
) -> None:
    """The least recent is dropped, and its client is served all the same."""
    monkeypatch.setattr(client_contexts, "MAX_CONTEXTS", 2)
    files = [TlsFiles(ca_file=tmp_path / f"ca-{number}.pem") for number in range(4)]
    contexts = transport._tls
    async with scripted(tls=ca.server(), host="localhost") as receiver:
        for each in files:
            assert each.ca_file is not None
            shutil.copy(ca.ca_file, each.ca_file)
            assert await transport.post(request(receiver.url, tls=each)) == HttpResponse(status=200)
        assert [*contexts._entries] == files[2:]
        assert await transport.post(request(receiver.url, tls=files[0])) == HttpResponse(status=200)
        assert [*contexts._entries] == [files[3], files[0]]


async def test_reading_files_does_not_reduce_the_deadline(
    transport: HttpTransport, ca: Authority, tmp_path: Path
) -> None:
    """A bundle is read in a thread; a request that cannot wait for it is deferred, and the next finds it read."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("# not a small file\n" * 10_000 + ca.ca_file.read_text())
    files = TlsFiles(ca_file=bundle)
    async with scripted(tls=ca.server()) as receiver:
        with pytest.raises(InternalFault, match="not read within") as caught:
            await transport.post(request(receiver.url, tls=files, within=1e-6))
        assert caught.value.cause is Cause.TLS_FILES
        assert await transport.post(request(receiver.url, tls=files)) == HttpResponse(status=200)


async def test_closing_waits_for_no_file(ca: Authority, tmp_path: Path) -> None:
    """A request that waits for a file is deferred."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("# not a small file\n" * 10_000 + ca.ca_file.read_text())
    async with opened() as transport:
        task = asyncio.create_task(transport.post(request("https://127.0.0.1:9/", tls=TlsFiles(ca_file=bundle))))
        await asyncio.sleep(0)
    with pytest.raises(InternalFault, match="closed while"):
        await task


async def test_a_hanging_file_delays_only_its_client(
    transport: HttpTransport, ca: Authority, trusted: TlsFiles, tmp_path: Path
) -> None:
    """Its attempts fail with the file's name; twenty of them occupy two threads. Other clients are served meanwhile."""
    file = tmp_path / "gone.pem"
    async with scripted(tls=ca.server(), host="localhost") as receiver:
        with hanging(file):
            for _ in range(2):
                attempts = [
                    asyncio.create_task(transport.post(request(receiver.url, tls=TlsFiles(ca_file=file))))
                    for _ in range(10)
                ]
                assert await transport.post(request(receiver.url, tls=trusted)) == HttpResponse(status=200)
                for fault in await asyncio.gather(*attempts, return_exceptions=True):
                    assert isinstance(fault, InternalFault)
                    assert fault.cause is Cause.TLS_FILES
                    assert str(fault) == f"{file} does not answer: its file system may be unreachable"
                assert sum(thread.name == "files" for thread in threading.enumerate()) <= 2
        shutil.copy(ca.ca_file, file)
        assert await transport.post(request(receiver.url, tls=TlsFiles(ca_file=file))) == HttpResponse(status=200)


async def test_a_file_that_hangs_later_leaves_the_context_in_use(
    transport: HttpTransport, ca: Authority, tmp_path: Path
) -> None:
    """Its client is served with the context that there is."""
    file = tmp_path / "ca.pem"
    shutil.copy(ca.ca_file, file)
    files = TlsFiles(ca_file=file)
    async with scripted(tls=ca.server(), host="localhost") as receiver:
        assert await transport.post(request(receiver.url, tls=files)) == HttpResponse(status=200)
        file.unlink()
        with hanging(file):
            for _ in range(3):
                assert await transport.post(request(receiver.url, tls=files)) == HttpResponse(status=200)


def _replace(file: Path, text: str) -> None:
    """Replace a file atomically: write a new one, then rename it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)  # noqa: PTH105  Path.replace is the same, and this names what it does


# ── PEM files that were damaged by copying: each reader reports the damage and the remedy ────────────────────────────


def _pkcs12() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return serialize_key_and_certificates(b"n", key, None, None, BestAvailableEncryption(b"changeit"))


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"\n", "is empty"),
    "line breaks written out": (lambda pem: pem.replace(b"\n", b"\\n"), r'line breaks: printf %b "$(cat FILE)"'),
    "base64 twice": (base64.encodebytes, "is base64 of the file that is meant; decode it once: base64 -d"),
    "base64 twice, in one line": (base64.b64encode, "is base64 of the file that is meant"),
    "no line breaks": (lambda pem: pem.replace(b"\n", b" "), "has lost its line breaks"),
    "indented": (lambda pem: b"".join(b"    " + line for line in pem.splitlines(True)), "is indented"),
    "UTF-16": (lambda pem: pem.decode().encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    "PKCS#12": (lambda _: _pkcs12(), "is PKCS#12, not PEM; convert it: openssl pkcs12"),
    "Java key store": (lambda _: bytes.fromhex("feedfeed00000002"), "is a Java key store, not PEM"),
    "DER": (lambda pem: base64.b64decode(b"".join(pem.splitlines()[1:-1])), "is DER, not PEM; convert it: openssl"),
}


@pytest.mark.parametrize(
    ("damaged", "holds", "text"),
    [
        ("ca.pem", "key.pem", "holds PRIVATE KEY, and has no certificate"),
        ("cert.pem", "key.pem", "holds PRIVATE KEY, and has no certificate"),
        ("key.pem", "cert.pem", "holds CERTIFICATE, and has no private key"),
        ("ca.pem", "revoked.pem", "holds X509 CRL, and has no certificate"),
        ("ca.pem", "words.pem", "is not PEM, and has no certificate: there is no line -----BEGIN CERTIFICATE-----"),
    ],
)
def test_a_file_of_another_kind_is_named(damaged: str, holds: str, text: str, tmp_path: Path) -> None:
    """Of authorities, certificates and keys. OpenSSL loads a list of revoked certificates as authorities."""
    cert, key = certificate_and_key(tmp_path)
    (tmp_path / "words.pem").write_text("the certificate")
    now = dt.datetime.now(dt.UTC)
    revoked = x509.CertificateRevocationListBuilder(x509.Name([]), now, now)
    signed = revoked.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    (tmp_path / "revoked.pem").write_bytes(signed.public_bytes(Encoding.PEM))
    shutil.copy(tmp_path / holds, tmp_path / damaged)
    with pytest.raises(InternalFault) as fault:
        build_client_context(TlsFiles(ca_file=tmp_path / "ca.pem", cert_file=cert, key_file=key))
    assert str(fault.value).startswith(f"{tmp_path / damaged} {text}")


@pytest.mark.parametrize("kind", ["EC", "RSA"])
def test_the_key_of_another_certificate_is_named(kind: str, tmp_path: Path) -> None:
    """OpenSSL has two reasons for it."""
    cert, key = certificate_and_key(tmp_path)
    other = ec.generate_private_key(ec.SECP256R1()) if kind == "EC" else rsa.generate_private_key(65537, 2048)
    key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InternalFault) as fault:
        build_client_context(TlsFiles(ca_file=tmp_path / "ca.pem", cert_file=cert, key_file=key))
    assert str(fault.value) == f"{cert}, {key}: the key does not belong to the certificate"


def certificate_and_key(folder: Path) -> tuple[Path, Path]:
    """A certificate and its private key, each in a file."""
    whole = authority(folder).issue("localhost").read_bytes()
    at = whole.index(b"-----BEGIN PRIVATE KEY")
    parts = whole[:at] + whole[whole.index(b"-----END PRIVATE KEY-----\n") + 26 :], whole[at:]
    key = parts[1][: parts[1].index(b"-----END PRIVATE KEY-----\n") + 26]
    (folder / "cert.pem").write_bytes(parts[0])
    (folder / "key.pem").write_bytes(key)
    load_pem_private_key(key, None)
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("damaged", ["cert.pem", "key.pem", "ca.pem", "signing key"])
def test_each_reader_reports_the_damage(tmp_path: Path, damage: str, damaged: str) -> None:
    """Certificates, their keys and authorities of clients and listeners, and signing keys; by the file's name."""
    cert, key = certificate_and_key(tmp_path)
    spoil, expected = DAMAGES[damage]
    file = key if damaged == "signing key" else tmp_path / damaged
    file.write_bytes(spoil(file.read_bytes()))
    if damaged == "signing key":
        with pytest.raises(ConfigurationError) as refused:
            load_key(KeySource(path=file))
        assert f"{file} " in str(refused.value)
        assert expected in str(refused.value)
        return
    own = {} if damaged == "ca.pem" else {"cert_file": cert, "key_file": key}
    ca_file = tmp_path / "ca.pem"
    with pytest.raises(InternalFault) as fault:
        build_client_context(TlsFiles(ca_file=ca_file, **own))
    assert str(fault.value).startswith(f"{file} ")
    assert expected in str(fault.value)
    with pytest.raises(InternalFault) as fault:
        build_server_context(
            ListenerTls.model_construct(
                cert_file=cert, key_file=key, client_ca_file=ca_file if damaged == "ca.pem" else None
            )
        )
    assert expected in str(fault.value)


@pytest.mark.parametrize("form", [["pkcs8", "-topk8", "-v2", "aes256"], ["ec", "-aes256"]])
def test_an_encrypted_key_is_named(tmp_path: Path, form: list[str]) -> None:
    """In both forms that openssl writes, for a client, a listener and an issuer."""
    cert, key = certificate_and_key(tmp_path)
    kind, *options = form
    locked = tmp_path / "locked.pem"
    command = ["openssl", kind, *options, "-in", str(key), "-out", str(locked), "-passout", "pass:x1234"]
    subprocess.run(command, check=True, capture_output=True)
    expected = f"{locked} is encrypted; store it decrypted"
    with pytest.raises(InternalFault, match="is encrypted") as fault:
        build_client_context(TlsFiles(ca_file=tmp_path / "ca.pem", cert_file=cert, key_file=locked))
    assert expected in str(fault.value)
    with pytest.raises(InternalFault, match="is encrypted") as fault:
        build_server_context(ListenerTls.model_construct(cert_file=cert, key_file=locked, client_ca_file=None))
    assert expected in str(fault.value)
    with pytest.raises(ConfigurationError) as refused:
        load_key(KeySource(path=locked))
    assert expected in str(refused.value)


def test_a_jwk_in_base64_is_named(tmp_path: Path) -> None:
    """Values of secret stores are often base64-encoded once more."""
    (tmp_path / "k").write_bytes(base64.b64encode(b'{"kty": "EC"}'))
    with pytest.raises(ConfigurationError, match="is base64 of the file that is meant"):
        load_key(KeySource(path=tmp_path / "k"))
