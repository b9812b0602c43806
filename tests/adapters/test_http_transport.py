"""What an attempt meets on the wire, on real sockets: every row of the table of outcomes that can be seen from here."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from notifier import __version__
from notifier.adapters.http_transport import HttpTransport
from notifier.domain.client import EgressPolicy, ResponsePolicy, Route
from notifier.domain.outcome import (
    Answer,
    Break,
    Delivered,
    Failed,
    Outcome,
    Reason,
    Refused,
    StaleConnection,
    Wire,
    read_wire,
)
from notifier.pipeline.ports import Request
from tests import behaviours as do
from tests.receivers import deaf_port, scripted

LOOPBACK = EgressPolicy(allow=(ip_network("127.0.0.0/8"), ip_network("::1/128")), allow_http=True)
HEADER = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImxvZ291dCtqd3QiLCJraWQiOiJhYmMifQ"
PAYLOAD = "eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJzdWIiOiJhbGljZSJ9"
SIGNATURE = "c2lnbmF0dXJlLXRoYXQtaXMtYXMtbG9uZy1hcy1hLXJlYWwtb25l-_abcdefgh"
TOKEN = f"{HEADER}.{PAYLOAD}.{SIGNATURE}"
PLENTY = 5.0
SHORT = 0.3


def request(uri: str, *, timeout: float = PLENTY, new_connection: bool = False, **route: Any) -> Request:
    return Request(
        uri=uri,
        token=TOKEN,
        timeout=timeout,
        route=Route(**{"egress": LOOPBACK, **route}),
        new_connection=new_connection,
    )


class ScriptedResolver(AbstractResolver):
    """Names as the test wants them; what it does not know is not found, and `silent.example` is never answered."""

    def __init__(self, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): addresses for name, addresses in names.items()}

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        if host == "silent.example":
            await asyncio.Event().wait()
        if host not in self.names:
            raise OSError(None, "Domain name not found")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.names[host]
        ]

    async def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    """One that resolves by aiodns. Whatever a test did to it, no connection is left after closing."""
    transport = HttpTransport()
    await transport.open()
    yield transport
    await transport.close()
    assert transport.open_connections == 0


@pytest.fixture
async def named() -> AsyncIterator[HttpTransport]:
    """One with scripted names."""
    transport = HttpTransport(
        ScriptedResolver(
            shop_example=["127.0.0.1"],
            rebound_example=["10.1.2.3"],
            metadata_example=["169.254.169.254"],
            two_example=["10.1.2.3", "127.0.0.1"],
            six_example=["::ffff:127.0.0.1"],
        )
    )
    await transport.open()
    yield transport
    await transport.close()


def outcome(wire: Wire, policy: ResponsePolicy | None = None) -> Outcome:
    assert not isinstance(wire, StaleConnection)
    return read_wire(wire, policy or ResponsePolicy(), now=1_000_000_000.0)


# ── what goes out ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_post_is_one_form_field_and_nothing_else(transport: HttpTransport) -> None:
    """B19, R9: POST, form encoded, exactly one `logout_token`; the query is kept byte for byte (B4)."""
    query = "?tenant=1&a=b+c&d=%2f%2F%c3%a4&&x=;&y=%7e~!'()*&z"
    async with scripted() as receiver:
        wire = await transport.post(request(receiver.url + "/%41/a%2Fb" + query))
    assert wire == Answer(status=200)
    [received] = receiver.requests
    assert received.method == "POST"
    assert received.target == "/backchannel-logout/%41/a%2Fb" + query
    assert received.body == f"logout_token={TOKEN}".encode()
    assert received.token == TOKEN
    assert received.header("content-type") == ["application/x-www-form-urlencoded"]
    assert received.header("host") == [f"127.0.0.1:{receiver.port}"]
    assert received.header("user-agent") == [f"notifier/{__version__}"]
    assert received.header("accept-encoding") == ["identity"]
    assert received.header("content-length") == [str(len(received.body))]
    assert not received.header("transfer-encoding")
    assert not received.header("cookie")


async def test_a_uri_without_path_is_posted_to_the_root(transport: HttpTransport) -> None:
    """B3: a path is no part of what makes a URI absolute."""
    async with scripted() as receiver:
        await transport.post(request(receiver.origin))
        await transport.post(request(receiver.origin + "?a=1"))
    assert [received.target for received in receiver.requests] == ["/", "/?a=1"]


async def test_the_clients_own_headers_are_sent_along(transport: HttpTransport) -> None:
    """Extra headers come from the route, and may replace the user agent."""
    async with scripted() as receiver:
        await transport.post(
            request(receiver.url, headers=(("Authorization", "Bearer hush-hush"), ("User-Agent", "x")))
        )
    [received] = receiver.requests
    assert received.header("authorization") == ["Bearer hush-hush"]
    assert received.header("user-agent") == ["x"]
    assert received.header("content-type") == ["application/x-www-form-urlencoded"]


async def test_cookies_are_not_kept(transport: HttpTransport) -> None:
    """What one client sets never comes back to it or to another."""
    async with scripted(do.answer(headers=(("Set-Cookie", "session=1; Path=/"),))) as receiver:
        await transport.post(request(receiver.url))
        await transport.post(request(receiver.url))
    assert not receiver.requests[1].header("cookie")


async def test_proxies_of_the_environment_are_not_used(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the route's proxy counts."""
    async with deaf_port() as port, scripted() as receiver:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        assert await transport.post(request(receiver.url)) == Answer(status=200)


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (200, Delivered, Reason.DELIVERED),
        (202, Delivered, Reason.DELIVERED),
        (204, Delivered, Reason.DELIVERED),
        (226, Delivered, Reason.DELIVERED),
        *((status, Refused, Reason.REDIRECT) for status in (300, 301, 302, 303, 304, 307, 308)),
        (400, Refused, Reason.REJECTED_TOKEN),
        *((status, Refused, Reason.REFUSED) for status in (401, 403, 404, 405, 407, 410, 413, 415, 418, 451)),
        *((status, Failed, Reason.SERVER_ERROR) for status in (408, 425, 500, 501, 502, 503, 504, 599)),
        (429, Failed, Reason.THROTTLED),
    ],
)
async def test_the_status_decides(transport: HttpTransport, status: int, kind: type[Outcome], reason: Reason) -> None:
    """B27, B28, R11, R12: each status means what the table says."""
    async with scripted(do.answer(status, b"" if status in (204, 304) else b"because")) as receiver:
        met = outcome(await transport.post(request(receiver.url)))
    assert isinstance(met, kind)
    assert (met.reason, met.status) == (reason, status)
    assert met.text == ("" if status in (204, 304) else "because")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(transport: HttpTransport, status: int) -> None:
    """The landing page's 200 is no success."""
    async with scripted() as landing, scripted(do.redirect(landing.url, status)) as receiver:
        wire = await transport.post(request(receiver.url))
    assert outcome(wire).reason is Reason.REDIRECT
    assert landing.connections == 0
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("Sun, 09 Sep 2001 01:47:40 GMT", 60.0),
        ("Sun, 09 Sep 2001 01:00:00 GMT", 0.0),
        ("soon", None),
        ("9" * 4000, 999_999_999_999.0),
    ],
)
async def test_retry_after_is_read_in_both_forms(transport: HttpTransport, value: str, seconds: float | None) -> None:
    """RFC 9110: seconds, or a date; what is neither is as good as none."""
    async with scripted(do.answer(503, headers=(("Retry-After", value),))) as receiver:
        met = outcome(await transport.post(request(receiver.url)))
    assert isinstance(met, Failed)
    assert met.retry_after == seconds


async def test_an_informational_response_is_not_the_answer(transport: HttpTransport) -> None:
    """103 comes before the answer."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    async with scripted(do.raw(hints)) as receiver:
        assert await transport.post(request(receiver.url)) == Answer(status=204)


async def test_an_answer_that_needs_no_length_ends_with_the_connection(transport: HttpTransport) -> None:
    """HTTP/1.0 receivers say the end of the body by closing."""
    async with scripted(do.raw(b"HTTP/1.0 400 Bad Request\r\n\r\nno such session", close=True)) as receiver:
        assert await transport.post(request(receiver.url)) == Answer(status=400, text="no such session")


# ── broken answers ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "behaviour",
    [
        do.flood_headers(503),
        do.raw(b"HTTP/1.1 503 Scripted\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n"),
        do.raw(b"HTTP/1.1 503 Scripted\r\nno colon here\r\n\r\n"),
        do.flood_body(503),
        do.gzip_bomb(503),
        do.raw(b"HTTP/1.1 503 Scripted\r\nContent-Length: 100\r\n\r\nshort", close=True),
        do.raw(b"HTTP/1.1 503 Scripted\r\nContent-Length: 100\r\n\r\nshort", reset=True),
        do.raw(b"HTTP/1.1 503 Scripted\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        do.raw(b"HTTP/1.1 503 Scripted\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", close=True),
        do.raw(b"HTTP/1.1 503 Scripted\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain"),
    ],
    ids=[
        "headers without end",
        "one long header",
        "no header",
        "body without end",
        "gzip bomb",
        "truncated",
        "reset in the body",
        "wrong chunk size",
        "truncated chunks",
        "not gzip",
    ],
)
async def test_a_broken_response_is_judged_by_its_status(transport: HttpTransport, behaviour: do.Behaviour) -> None:
    """The status line has said it; what is too much is not read, and the connection is not used again."""
    async with scripted(behaviour, do.answer(204)) as receiver:
        met = outcome(await transport.post(request(receiver.url)))
        assert (met.reason, met.status) == (Reason.SERVER_ERROR, 503)
        assert outcome(await transport.post(request(receiver.url))).status == 204


async def test_a_body_is_read_up_to_16_kib(transport: HttpTransport) -> None:
    """R11: of a body without end the first KiB is kept and the connection closed."""
    async with scripted(do.flood_body(200)) as receiver:
        assert await transport.post(request(receiver.url)) == Answer(status=200, text="m" * 1024)
        await receiver.until(lambda receiver: receiver.open == 0)


async def test_headers_under_16_kib_are_fine(transport: HttpTransport) -> None:
    """Many headers are no fault."""
    many = tuple((f"X-{number}", "y" * 200) for number in range(70))
    async with scripted(do.answer(200, b"ok", many)) as receiver:
        assert await transport.post(request(receiver.url)) == Answer(status=200, text="ok")


async def test_a_bomb_is_not_decompressed(transport: HttpTransport) -> None:
    """We ask for `identity`; who sends something else is not read."""
    async with scripted(do.gzip_bomb(200)) as receiver:
        wire = await transport.post(request(receiver.url))
    assert wire == Answer(status=200, text="[body not decompressed]")


async def test_the_text_kept_is_printable_and_short(transport: HttpTransport) -> None:
    """At most 1 KiB, without control characters; broken UTF-8 is replaced."""
    body = b'{"error":\r\n\x00\x1b[31m"invalid_request"}\xff ' + "ü".encode() * 2000
    async with scripted(do.answer(400, body)) as receiver:
        wire = await transport.post(request(receiver.url))
    assert isinstance(wire, Answer)
    assert wire.text.startswith('{"error":    [31m"invalid_request"}\ufffd ü')
    assert len(wire.text) <= 1024
    assert wire.text.isprintable()


@pytest.mark.parametrize(
    "echo",
    [TOKEN, f"logout_token={TOKEN}&", f"at {SIGNATURE}.", PAYLOAD[3:40], "x" * 1000 + TOKEN, f"xx{SIGNATURE[:20]}yy"],
)
async def test_an_echo_of_the_token_is_not_kept(transport: HttpTransport, echo: str) -> None:
    """A receiver that quotes what it got makes no dead letter with a token in it."""
    async with scripted(do.answer(400, f"bad token {echo} and Bearer hush-hush".encode())) as receiver:
        wire = await transport.post(request(receiver.url, headers=(("Authorization", "Bearer hush-hush"),)))
    assert isinstance(wire, Answer)
    assert "bad token" in wire.text
    assert "hush" not in wire.text
    assert not any(wire.text[start : start + 15] in TOKEN for start in range(max(1, len(wire.text) - 14)))


# ── no answer ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (do.hang(), Reason.TIMEOUT),
        (do.hang(reads=False), Reason.TIMEOUT),
        (do.drip_headers(), Reason.TIMEOUT),
        (do.drip_body(), Reason.TIMEOUT),
        (do.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Reason.TIMEOUT),
        (do.reset(), Reason.DISCONNECTED),
        (do.close(), Reason.DISCONNECTED),
        (do.raw(b"HTTP/1.1 200 O", close=True), Reason.DISCONNECTED),
        (do.raw(b"HTTP/1.1 200 OK\r\nX: y\r\n", close=True), Reason.DISCONNECTED),
        (do.raw(b"SSH-2.0-OpenSSH_9.2\r\n"), Reason.DISCONNECTED),
    ],
    ids=[
        "hangs",
        "never reads",
        "drips headers",
        "drips a body",
        "stops in the body",
        "resets",
        "closes",
        "breaks off in the status line",
        "breaks off in the headers",
        "is no web server",
    ],
)
async def test_without_a_whole_answer_the_attempt_is_ambiguous(
    transport: HttpTransport, behaviour: do.Behaviour, reason: Reason
) -> None:
    """R3: the request was written, so the client may have acted on it. The deadline covers the body."""
    loop = asyncio.get_running_loop()
    async with scripted(behaviour) as receiver:
        begun = loop.time()
        wire = await transport.post(request(receiver.url, timeout=SHORT))
        took = loop.time() - begun
        await receiver.until(lambda receiver: receiver.open == 0)
    assert isinstance(wire, Break)
    assert (wire.reason, wire.ambiguous) == (reason, True)
    assert wire.text
    assert took < SHORT + 0.7
    assert reason is not Reason.TIMEOUT or took >= SHORT - 0.01


async def test_a_refused_connection_is_not_ambiguous(transport: HttpTransport) -> None:
    """Nothing was written."""
    async with deaf_port() as port:
        wire = await transport.post(request(f"http://127.0.0.1:{port}/"))
    assert wire == Break(reason=Reason.CONNECT, ambiguous=False, text="Connection refused")


async def test_a_name_that_is_not_found(named: HttpTransport) -> None:
    """`dns`, and the text names the name."""
    wire = await named.post(request("http://nowhere.example/"))
    assert wire == Break(reason=Reason.DNS, ambiguous=False, text="nowhere.example: Domain name not found")


async def test_the_deadline_covers_the_name_look_up(named: HttpTransport) -> None:
    """A black-hole name server costs no more than the deadline."""
    wire = await named.post(request("http://silent.example/", timeout=SHORT))
    assert isinstance(wire, Break)
    assert (wire.reason, wire.ambiguous) == (Reason.TIMEOUT, False)


async def test_names_of_the_hosts_file_are_found(transport: HttpTransport) -> None:
    """aiodns reads it."""
    async with scripted(host="localhost") as receiver:
        assert await transport.post(request(receiver.url)) == Answer(status=200)


# ── connections kept alive ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_connection_is_used_again(transport: HttpTransport) -> None:
    """After a complete answer, with a body or without."""
    async with scripted(do.answer(204), do.answer(400, b"no"), do.answer(200)) as receiver:
        for _ in range(3):
            await transport.post(request(receiver.url))
    assert receiver.connections == 1


@pytest.mark.parametrize("behaviour", [do.close(), do.reset()], ids=["closed", "reset"])
async def test_a_kept_connection_that_ends_before_any_byte_is_stale(
    transport: HttpTransport, behaviour: do.Behaviour
) -> None:
    """No attempt: one more go, on a connection that was not used before; what happens there is final."""
    async with scripted(do.answer(200), behaviour) as receiver:
        assert await transport.post(request(receiver.url)) == Answer(status=200)
        assert await transport.post(request(receiver.url)) == StaleConnection()
        wire = await transport.post(request(receiver.url, new_connection=True))
    assert isinstance(wire, Break)
    assert (wire.reason, wire.ambiguous) == (Reason.DISCONNECTED, True)
    assert [received.connection for received in receiver.requests] == [1, 1, 2]


async def test_a_connection_closed_while_idle_is_not_used(transport: HttpTransport) -> None:
    """A server that closes after each answer costs no stale connection once the close has come."""
    async with scripted(do.answer(200, close=True)) as receiver:
        for _ in range(3):
            assert await transport.post(request(receiver.url)) == Answer(status=200)
            await receiver.until(lambda receiver: receiver.open == 0)
            await _until(lambda: transport.open_connections == 0)
    assert receiver.connections == 3


async def test_a_kept_connection_that_ends_within_the_answer_is_not_stale(transport: HttpTransport) -> None:
    """Bytes came: the client may have acted."""
    async with scripted(do.answer(200), do.raw(b"HTTP/1.1 2", close=True)) as receiver:
        await transport.post(request(receiver.url))
        wire = await transport.post(request(receiver.url))
    assert isinstance(wire, Break)
    assert (wire.reason, wire.ambiguous) == (Reason.DISCONNECTED, True)


async def test_a_new_connection_can_be_asked_for(transport: HttpTransport) -> None:
    """It is new although another is kept, and is kept in its turn."""
    async with scripted() as receiver:
        await transport.post(request(receiver.url))
        await transport.post(request(receiver.url, new_connection=True))
        await transport.post(request(receiver.url))
    assert [received.connection for received in receiver.requests] == [1, 2, 2]


async def test_policies_do_not_share_connections(transport: HttpTransport) -> None:
    """What one policy allows must not be reached by another over a connection that is there already."""
    other = replace(LOOPBACK, deny=(ip_network("8.8.8.0/24"),))
    strict = EgressPolicy(allow_http=True)
    async with scripted(host="localhost") as receiver:
        await transport.post(request(receiver.url))
        await transport.post(request(receiver.url, egress=other))
        denied = await transport.post(request(receiver.url, egress=strict))
    assert receiver.connections == 2
    assert isinstance(denied, Break)
    assert denied.reason is Reason.EGRESS_DENIED


async def test_many_requests_at_once(transport: HttpTransport) -> None:
    """Each gets its own answer."""
    async with scripted() as receiver:
        wires = await asyncio.gather(*(transport.post(request(f"{receiver.url}?n={number}")) for number in range(50)))
        assert wires == [Answer(status=200)] * 50
        assert len(receiver.requests) == 50
    assert {received.target.rpartition("=")[2] for received in receiver.requests} == {str(n) for n in range(50)}


async def test_a_cancelled_request_leaves_no_connection(transport: HttpTransport) -> None:
    """A drain that runs out of time cancels."""
    async with scripted(do.hang()) as receiver:
        task = asyncio.create_task(transport.post(request(receiver.url)))
        await receiver.until(lambda receiver: len(receiver.requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await receiver.until(lambda receiver: receiver.open == 0)


# ── egress ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:{port}/",
        "https://127.0.0.1:{port}/",
        "https://127.1:{port}/",
        "https://2130706433:{port}/",
        "https://[::ffff:127.0.0.1]:{port}/",
        "https://user@127.0.0.1:{port}/",
        "https://127.0.0.1:{port}/#f",
        "ftp://127.0.0.1:{port}/",
        "not a URI",
    ],
)
async def test_what_is_not_allowed_is_not_connected_to(transport: HttpTransport, uri: str) -> None:
    """By default: https only, public addresses only, whatever coat they wear."""
    async with scripted() as receiver:
        wire = await transport.post(request(uri.format(port=receiver.port), egress=EgressPolicy()))
        assert receiver.connections == 0
    assert isinstance(wire, Break)
    assert (wire.reason, wire.ambiguous) == (Reason.EGRESS_DENIED, False)


@pytest.mark.parametrize("name", ["rebound.example", "metadata.example", "six.example"])
async def test_the_address_really_connected_to_is_judged(named: HttpTransport, name: str) -> None:
    """A name may mean anything: what it means now is what counts, and the text names the setting."""
    wire = await named.post(request(f"http://{name}:9/"))
    assert isinstance(wire, Break)
    assert (wire.reason, wire.ambiguous) == (Reason.EGRESS_DENIED, False)
    assert "egress.allow" in wire.text


async def test_of_several_addresses_the_allowed_ones_are_used(named: HttpTransport) -> None:
    """One denied address does not forbid the others; and when those fail, it is they that failed."""
    async with scripted(host="two.example") as receiver:
        assert await named.post(request(receiver.url)) == Answer(status=200)
        assert receiver.connections == 1
    async with deaf_port() as port:
        wire = await named.post(request(f"http://two.example:{port}/"))
    assert isinstance(wire, Break)
    assert wire.reason is Reason.CONNECT


async def test_a_disguised_address_is_refused_even_where_it_would_be_allowed(transport: HttpTransport) -> None:
    """`127.1` may be judged as 127.0.0.1, but aiohttp connects to canonical addresses only: dead, and it says why."""
    async with scripted(host="127.1") as receiver:
        wire = await transport.post(request(receiver.url))
    assert wire == Break(reason=Reason.EGRESS_DENIED, ambiguous=False, text="host is not a canonical IPv4 address")


# ── housekeeping ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_closing_leaves_no_connection() -> None:
    """Neither idle ones nor one in use; the request in flight ends as disconnected."""
    transport = HttpTransport()
    await transport.open()
    async with scripted(do.answer(200), do.hang()) as receiver:
        await transport.post(request(receiver.url))
        task = asyncio.create_task(transport.post(request(receiver.url)))
        await receiver.until(lambda receiver: len(receiver.requests) == 2)
        await transport.close()
        await task
        await receiver.until(lambda receiver: receiver.open == 0)
    assert transport.open_connections == 0


async def test_texts_hold_no_secret(transport: HttpTransport) -> None:
    """Neither the token nor the headers come back in an error."""
    secret = (("Authorization", "Bearer hush-hush"),)
    async with deaf_port() as port, scripted(do.reset()) as receiver:
        for uri in (f"http://127.0.0.1:{port}/", receiver.url, "http://192.0.2.1/", "http://x y/"):
            wire = await transport.post(request(uri, headers=secret))
            assert isinstance(wire, Break)
            assert not re.search("hush|" + re.escape(SIGNATURE), repr(wire))
            assert len(wire.text) <= 300


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PLENTY):
        while not condition():  # noqa: ASYNC110  a turn of the loop, not a wait: nothing announces it
            await asyncio.sleep(0)
