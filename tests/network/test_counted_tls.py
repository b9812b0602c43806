"""Test the limits of TLS connections: records without data, the size of a handshake, key exchanges in finite fields."""

import ssl
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from notifier.network import counted_tls
from notifier.network.counted_tls import (
    MAX_CLIENT_HANDSHAKE_BYTES,
    MAX_CLIENT_RECORDS_WITHOUT_DATA,
    MAX_MISSING_DATA_BYTES,
    MAX_SERVER_RECORDS_WITHOUT_DATA,
    MIN_MEAN_DATA_BYTES,
    WINDOW_SECONDS,
    CountedContext,
    CountedTls,
    TlsLimitError,
    new_context,
)
from tests.support.certificates import Authority, authority
from tests.support.tls_peer import ALERT, APPLICATION, HANDSHAKE, TlsPeer, tickets

FLOOD = 1000  # records
SIDES = ("outgoing", "listener")


class Connection:
    """A connection of notifier with a hostile peer, and the buffers of an event loop.

    `now`: the clock's time. `max_records`: the limit of those without data.
    """

    def __init__(self, folder: Path, side: str) -> None:
        self.now = 100.0
        ca = authority(folder / "ca")
        own = ca.issue("localhost")
        is_listener = side == "listener"
        self.max_records = MAX_CLIENT_RECORDS_WITHOUT_DATA if is_listener else MAX_SERVER_RECORDS_WITHOUT_DATA
        context = new_context(
            ssl.PROTOCOL_TLS_SERVER if is_listener else ssl.PROTOCOL_TLS_CLIENT, clock=lambda: self.now
        )
        if is_listener:
            context.load_cert_chain(own)
            context.num_tickets = 0
        else:
            context.load_verify_locations(ca.ca_file)
        self.context = context
        self.peer = TlsPeer(folder, None if is_listener else own)
        self.received, self.sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.received, self.sent, is_listener, server_hostname=None if is_listener else "localhost"
        )
        for _ in range(4):
            self.received.write(self.peer.take())
            with suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            self.peer.receive(self.sent.read())
        assert self.peer.is_ready

    def read(self, records: bytes, size: int = 65536) -> bytes:
        """Return the data of the records."""
        self.received.write(records)
        data = b""
        try:
            while True:
                data += self.tls.read(size)
        except ssl.SSLWantReadError:
            return data


@pytest.fixture(params=SIDES)
def connection(tmp_path: Path, request: pytest.FixtureRequest) -> Connection:
    """Return a connection whose handshake is complete."""
    return Connection(tmp_path, request.param)


@pytest.fixture
def outgoing(tmp_path: Path) -> Connection:
    """Return a connection to a client."""
    return Connection(tmp_path, "outgoing")


def test_the_time_of_handshakes_is_counted(connection: Connection) -> None:
    """Listeners leave as much to other work."""
    assert connection.context.take_handshake_seconds() > 0
    assert connection.context.take_handshake_seconds() == 0


# ── Records without data ──


def mixed(peer: TlsPeer, without_data: Callable[[], bytes]) -> bytes:
    """Return FLOOD records without data, each followed by a byte of data."""
    return b"".join(without_data() + peer.data(b"x") for _ in range(FLOOD))


FLOODS: dict[str, Callable[[TlsPeer], bytes]] = {
    "key updates": lambda peer: peer.key_updates(FLOOD),
    "key updates with replies": lambda peer: peer.key_updates(FLOOD, reply=True),
    "key updates and data in turn": lambda peer: mixed(peer, lambda: peer.key_updates(1)),
    "empty records with padding": lambda peer: b"".join(peer.seal(APPLICATION, b"", 16_000) for _ in range(31)),
    "empty records and data in turn": lambda peer: mixed(
        peer, lambda: b"".join(peer.seal(APPLICATION, b"") for _ in range(31))
    ),
}
TICKETS: dict[str, Callable[[TlsPeer], bytes]] = {
    "tickets": lambda peer: b"".join(peer.seal(HANDSHAKE, tickets(1)) for _ in range(FLOOD)),
    "tickets, 500 in a record": lambda peer: b"".join(peer.seal(HANDSHAKE, tickets(500)) for _ in range(10)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_connection(connection: Connection, name: str) -> None:
    """Data within the limit is passed on, the rest of the flood is dropped, and the next record raises the error."""
    assert len(connection.read(FLOODS[name](connection.peer))) <= connection.max_records
    assert not connection.received.pending
    with pytest.raises(TlsLimitError, match="records without data") as raised:
        connection.read(b"x")
    assert raised.value.reason == "too many TLS records without data"


@pytest.mark.parametrize("name", TICKETS)
def test_a_flood_of_tickets_ends_the_connection(outgoing: Connection, name: str) -> None:
    """As do other records without data."""
    assert outgoing.read(TICKETS[name](outgoing.peer)) == b""
    with pytest.raises(TlsLimitError, match="records without data"):
        outgoing.read(b"x")


def test_a_response_before_a_flood_is_passed_on(outgoing: Connection) -> None:
    """A client that answers 200 and then floods was notified."""
    flood = outgoing.peer.data(b"HTTP/1.1 200") + outgoing.peer.key_updates(FLOOD)
    assert outgoing.read(flood) == b"HTTP/1.1 200"


def test_a_flood_after_our_end_is_not_read_either(outgoing: Connection) -> None:
    """While the peer's close_notify is awaited."""
    outgoing.received.write(outgoing.peer.key_updates(FLOOD))
    with pytest.raises(ssl.SSLWantReadError):
        outgoing.tls.unwrap()
    with pytest.raises(TlsLimitError, match="records without data"):
        outgoing.tls.unwrap()


def test_a_flood_of_small_records_ends_the_connection(connection: Connection) -> None:
    """A record of one byte takes as long as one of 100. Data before the limit is passed on."""
    peer = connection.peer
    flood = b"".join(peer.data(b"x") for _ in range(3 * MAX_MISSING_DATA_BYTES // MIN_MEAN_DATA_BYTES))
    spare = MAX_MISSING_DATA_BYTES // (MIN_MEAN_DATA_BYTES - 1)
    assert len(connection.read(flood)) == spare + 1
    assert not connection.received.pending
    with pytest.raises(TlsLimitError) as raised:
        connection.read(b"x")
    assert raised.value.reason == "too many small TLS records"


@pytest.mark.parametrize("size", [3, 65536])
def test_frames_of_a_broker_and_chunks_are_no_flood(connection: Connection, size: int) -> None:
    """Confirms have 21 bytes each. A chunk of 44 bytes may come in three records, and its data in parts."""
    peer, rounds = connection.peer, MAX_MISSING_DATA_BYTES
    confirms = b"".join(peer.data(b"c" * 21) for _ in range(rounds))
    assert len(connection.read(confirms, size)) == 21 * rounds
    chunks = b"".join(peer.data(b"2c\r\n") + peer.data(b"c" * 44) + peer.data(b"\r\n") for _ in range(rounds))
    assert len(connection.read(chunks, size)) == 50 * rounds


def test_large_records_make_up_for_few_small_ones(connection: Connection) -> None:
    """They leave as many small ones as a new connection may have, not more."""
    peer = connection.peer
    connection.read(b"".join(peer.data(b"x" * 16_000) for _ in range(20)))
    spare = MAX_MISSING_DATA_BYTES // (MIN_MEAN_DATA_BYTES - 1)
    assert len(connection.read(b"".join(peer.data(b"x") for _ in range(2 * spare)))) == spare + 1


def test_heartbeats_of_a_quiet_broker_are_no_flood(connection: Connection) -> None:
    """Each has 8 bytes, every 30 s, for as long as nothing else comes."""
    for _ in range(2 * MAX_MISSING_DATA_BYTES // 8):
        connection.now += 30.0
        assert len(connection.read(connection.peer.data(b"h" * 8))) == 8


def test_some_key_updates_are_accepted(connection: Connection) -> None:
    """Records may arrive byte by byte, and their data may be read in small parts."""
    peer, text = connection.peer, bytes(range(256)) * 64
    records = peer.key_updates(connection.max_records) + peer.data(text) + peer.data(text)
    assert b"".join(connection.read(records[at : at + 1], 1000) for at in range(len(records))) == 2 * text


def test_the_limit_is_one_per_time(connection: Connection) -> None:
    """Later as many records are accepted again, so that a long connection may update its keys."""
    for _ in range(3):
        assert connection.read(connection.peer.key_updates(connection.max_records) + connection.peer.data(b"x"))
        connection.now += WINDOW_SECONDS + 1
    connection.read(connection.peer.key_updates(connection.max_records + 1))
    with pytest.raises(TlsLimitError):
        connection.read(b"x")


def certificate_request() -> bytes:
    """Return a CertificateRequest (RFC 8446 §4.3.2)."""
    return b"\x0d\0\0\x0b\0\0\x08\0\x0d\0\x04\0\x02\x04\x03"


REFUSED: dict[str, Callable[[TlsPeer], bytes]] = {
    "a CertificateRequest": lambda peer: peer.seal(HANDSHAKE, certificate_request()),
    "a HelloRequest": lambda peer: peer.seal(HANDSHAKE, b"\0\0\0\0"),
    "a ClientHello": lambda peer: peer.seal(HANDSHAKE, b"\1\0\0\0"),
    "a message of 16 MiB": lambda peer: peer.seal(HANDSHAKE, b"\4\xff\xff\xff" + bytes(16_000)),
    "alerts": lambda peer: b"".join(peer.seal(ALERT, b"\1\x5a") for _ in range(10)),
    "empty records": lambda peer: b"".join(peer.seal(APPLICATION, b"") for _ in range(40)),
    "a heartbeat": lambda peer: peer.seal(24, b"\1\0\0"),
    "a change of ciphers": lambda peer: b"\x14\3\3\0\1\1",
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_records_are_refused(connection: Connection, name: str) -> None:
    """After the handshake: by OpenSSL, or by the limit, which the next record shows."""
    records = REFUSED[name](connection.peer) + connection.peer.data(b"x")
    with pytest.raises(ssl.SSLError):
        connection.read(connection.read(records))


def test_a_listener_accepts_no_ticket(tmp_path: Path) -> None:
    """OpenSSL refuses it."""
    connection = Connection(tmp_path, "listener")
    with pytest.raises(ssl.SSLError):
        connection.read(connection.peer.seal(HANDSHAKE, tickets(1)))


# ── The handshake ──


def wrap(context: CountedContext) -> tuple[CountedTls, ssl.MemoryBIO]:
    """Return a connection before its handshake, and the buffer of received bytes."""
    received = ssl.MemoryBIO()
    is_server = context.protocol == ssl.PROTOCOL_TLS_SERVER
    return context.wrap_bio(
        received, ssl.MemoryBIO(), is_server, server_hostname=None if is_server else "localhost"
    ), received


def records_of(message: bytes) -> Iterator[bytes]:
    """Return the records of a handshake message."""
    for at in range(0, len(message), 8192):
        part = message[at : at + 8192]
        yield b"\x16\x03\x03" + struct.pack("!H", len(part)) + part


def feed(tls: CountedTls, received: ssl.MemoryBIO, records: Iterable[bytes]) -> int:
    """Return how many bytes of these records were accepted before the error. Raises it if it is not of a limit."""
    accepted = 0
    for record in records:
        received.write(record)
        try:
            tls.do_handshake()
        except TlsLimitError:
            return accepted
        except ssl.SSLWantReadError:
            accepted += len(record)
    return accepted


def test_an_unfinished_client_hello_is_limited() -> None:
    """Of 128 KiB less than 16 KiB are accepted."""
    tls, received = wrap(new_context(ssl.PROTOCOL_TLS_SERVER))
    hello = b"\x01\x01\xff\xff\x03\x03" + bytes(131_072)
    assert 0 < feed(tls, received, records_of(hello)) < MAX_CLIENT_HANDSHAKE_BYTES


def test_a_handshake_of_many_records_is_limited() -> None:
    """Even if they are small."""
    tls, received = wrap(new_context(ssl.PROTOCOL_TLS_SERVER))
    hello = b"\x01\x01\xff\xff\x03\x03" + bytes(1000)
    records = (b"\x16\x03\x03\0\1" + bytes([byte]) for byte in hello)
    assert feed(tls, received, records) == 64 * 6


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    """Create a certificate authority."""
    return authority(tmp_path / "ca")


def shake_hands(ca: Authority, server: ssl.SSLContext) -> CountedTls:
    """Return a client's side after its handshake. Raises its error."""
    context = new_context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca.ca_file)
    received, sent, arrived, answered = (ssl.MemoryBIO() for _ in range(4))
    tls = context.wrap_bio(received, sent, server_hostname="localhost")
    peer = server.wrap_bio(arrived, answered, server_side=True)
    for _ in range(4):
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            arrived.write(sent.read())
            with suppress(ssl.SSLWantReadError):
                peer.do_handshake()
            received.write(answered.read())
        else:
            return tls
    raise AssertionError("the handshake did not end")


def test_a_certificate_of_many_names_is_refused(ca: Authority) -> None:
    """5,000 names are 74 KiB. 1,000 are accepted."""
    names = [f"a{number:04}.example" for number in range(5000)]
    assert shake_hands(ca, ca.server("localhost", *names[:1000])).version() == "TLSv1.3"
    with pytest.raises(TlsLimitError, match="handshake is too large"):
        shake_hands(ca, ca.server("localhost", *names))


def test_many_useless_certificates_are_refused(ca: Authority, tmp_path: Path) -> None:
    """220 take 38 ms: each with the issuer's name is tried."""
    chain = tmp_path / "chain.pem"
    chain.write_bytes(ca.issue("localhost").read_bytes() + 220 * ca.ca_file.read_bytes())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    with pytest.raises(TlsLimitError, match="handshake is too large"):
        shake_hands(ca, server)


# ── Key exchanges in finite fields ──

RETRY_WITH_FFDHE8192 = bytes.fromhex(  # a HelloRetryRequest (RFC 8446 §4.1.4)
    "02000034 0303 cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"
    " 00 1301 00 000c 002b00020304 003300020104"
)
HELLO_REQUEST, WARNING = b"\0\0\0\0", b"\x15\3\3\0\2\1\x70"  # unrecognized_name


@pytest.mark.parametrize(
    "records",
    [
        [*records_of(RETRY_WITH_FFDHE8192)],
        [WARNING, *records_of(RETRY_WITH_FFDHE8192)],
        [*records_of(HELLO_REQUEST + RETRY_WITH_FFDHE8192)],
        [*records_of(RETRY_WITH_FFDHE8192[:20]), *records_of(RETRY_WITH_FFDHE8192[20:])],
        [*records_of(RETRY_WITH_FFDHE8192[:45]), *records_of(RETRY_WITH_FFDHE8192[45:])],
    ],
    ids=["alone", "after an alert", "after another message", "divided early", "divided late"],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_a_server_cannot_request_a_finite_field(records: list[bytes], step: int) -> None:
    """A client would compute for 0.15 s with ffdhe8192. The bytes may arrive one by one."""
    tls, received = wrap(new_context(ssl.PROTOCOL_TLS_CLIENT))
    sent = b"".join(records)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with pytest.raises(TlsLimitError, match="finite field"):  # noqa: PT012  one of these calls raises it
        for at in range(0, len(sent), step):
            received.write(sent[at : at + step])
            with suppress(ssl.SSLWantReadError):
                tls.do_handshake()


@pytest.mark.parametrize("curve", ["secp384r1", "secp521r1", "prime256v1"])
def test_a_server_may_request_another_curve(ca: Authority, curve: str) -> None:
    """By a HelloRetryRequest."""
    server = ca.server()
    server.set_ecdh_curve(curve)
    assert shake_hands(ca, server).version() == "TLSv1.3"


class NewerContext(CountedContext):
    """A context with the method of Python 3.15, which lists the groups by the names of OpenSSL. It records them."""

    groups = ""

    def set_groups(self, groups: str, /) -> None:
        """Record the groups."""
        self.groups = groups


@pytest.mark.parametrize("protocol", [ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER])
def test_a_listener_offers_x25519_where_python_can(monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    """From Python 3.15 on. A client's context keeps the groups of OpenSSL."""
    monkeypatch.setattr(counted_tls, "CountedContext", NewerContext)
    context = new_context(protocol)
    assert isinstance(context, NewerContext)
    assert context.groups == ("X25519:P-256" if protocol == ssl.PROTOCOL_TLS_SERVER else "")


@pytest.mark.skipif(hasattr(ssl.SSLContext, "set_groups"), reason="this Python offers X25519 too")
@pytest.mark.parametrize("curve", ["X25519", "secp384r1", "secp521r1"])
def test_a_listener_refuses_a_client_of_another_curve(ca: Authority, curve: str) -> None:
    """Before Python 3.15 a listener has one curve, P-256, as the page of `api.tls` states."""
    server, client = new_context(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(ca.issue("localhost"))
    client.load_verify_locations(ca.ca_file)
    client.set_ecdh_curve(curve)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    accepting = server.wrap_bio(to_server, to_client, server_side=True)
    with suppress(ssl.SSLWantReadError):
        client.wrap_bio(to_client, to_server, server_hostname="localhost").do_handshake()
    with pytest.raises(ssl.SSLError, match=r"(?i)no.(suitable.key.share|shared.(group|cipher))"):
        accepting.do_handshake()


def test_a_listener_computes_in_no_finite_field(ca: Authority) -> None:
    """A ClientHello of 1.3 KiB, which needs no computation, would take it 0.15 s."""
    share = struct.pack("!HH", 0x0104, 1024) + b"\x7f" * 1024  # ffdhe8192
    extensions = (
        bytes.fromhex("002b 0003 020304  000a 0004 0002 0104  000d 0004 0002 0403")
        + struct.pack("!HHH", 51, len(share) + 2, len(share))
        + share
    )
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + struct.pack("!H", len(extensions)) + extensions
    context = new_context(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca.issue("localhost"))
    tls, received = wrap(context)
    received.write(b"".join(records_of(b"\1" + len(body).to_bytes(3) + body)))
    with pytest.raises(ssl.SSLError) as raised:
        tls.do_handshake()
    assert raised.value.reason == "NO_SUITABLE_KEY_SHARE"


@pytest.mark.parametrize("protocol", [ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER])
def test_no_cipher_uses_a_finite_field(protocol: int) -> None:
    """With DHE of TLS 1.2 the server chooses the size: a client computes for 0.9 s with 10,000 bits."""
    kinds = {cipher["kea"] for cipher in new_context(protocol).get_ciphers()}
    assert "kx-ecdhe" in kinds
    assert "kx-dhe" not in kinds
