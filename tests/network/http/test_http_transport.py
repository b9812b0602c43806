"""Test requests to a client and the meaning of its answers: each row of the outcome table, on real sockets."""

import asyncio
import base64
import json
import sys
from typing import Any
from urllib.parse import quote

import pytest

from notifier import RELEASE
from notifier.model.delivery import Delivery
from notifier.model.outcome import Delivered, Failed, HttpResponse, Outcome, Reason, Refused
from notifier.model.record import copy_record
from notifier.model.request import RequestExtras
from notifier.network.http.response_text import answer_text
from notifier.network.http.transport import HttpTransport
from tests.network.http.http_requests import PAYLOAD, SIGNATURE, TOKEN, outcome, request
from tests.support import behaviours as do
from tests.support.receivers import deaf_port, scripted

# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_post_is_one_form_field_and_nothing_else(transport: HttpTransport) -> None:
    """B19, R9: POST, form encoded, exactly one `logout_token`; the query is kept byte for byte (B4)."""
    query = "?tenant=1&a=b+c&d=%2f%2F%c3%a4&&x=;&y=%7e~!'()*&z"
    async with scripted() as receiver:
        wire = await transport.post(request(receiver.url + "/%41/a%2Fb" + query))
    assert wire == HttpResponse(status=200)
    [received] = receiver.requests
    assert received.method == "POST"
    assert received.target == "/backchannel-logout/%41/a%2Fb" + query
    assert received.body == f"logout_token={TOKEN}".encode()
    assert received.token == TOKEN
    assert received.header("content-type") == ["application/x-www-form-urlencoded"]
    assert received.header("host") == [f"127.0.0.1:{receiver.port}"]
    assert received.header("user-agent") == [f"notifier/{RELEASE}"]  # without the commit
    assert received.header("accept-encoding") == ["identity"]
    assert received.header("content-length") == [str(len(received.body))]
    assert not received.header("transfer-encoding")
    assert not received.header("cookie")


async def test_a_uri_without_path_is_posted_to_the_root(transport: HttpTransport) -> None:
    """B3: a URI without a path is absolute too."""
    async with scripted() as receiver:
        await transport.post(request(receiver.origin))
        await transport.post(request(receiver.origin + "?a=1"))
        await transport.post(request(receiver.origin + "?"))
        await transport.post(request(receiver.origin + "?x=/y%2f"))
        await transport.post(request(receiver.origin + "//a/?"))
    assert [received.target for received in receiver.requests] == ["/", "/?a=1", "/?", "/?x=/y%2f", "//a/?"]


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


@pytest.mark.parametrize("by_proxy", [False, True])
async def test_channel_has_its_own_headers(transport: HttpTransport, *, by_proxy: bool) -> None:
    """They replace the defaults, and the route's replace both. An Authorization belongs to one request only."""
    own = (("Content-Type", "application/secevent+jwt"), ("Accept", "application/json"))
    async with scripted() as receiver:
        uri = receiver.url
        route: dict[str, Any] = {}
        if by_proxy:
            uri, route = "http://shop.example.com/x", {"proxy": receiver.origin}
        plain = request(uri, **route)
        await transport.post(copy_record(plain, extras=RequestExtras(headers=own, authorization="Bearer one")))
        await transport.post(
            copy_record(request(uri, headers=(("accept", "text/x"),), **route), extras=RequestExtras(headers=own))
        )
        await transport.post(plain)
    first, second, third = receiver.requests
    assert first.header("content-type") == second.header("content-type") == ["application/secevent+jwt"]
    assert third.header("content-type") == ["application/x-www-form-urlencoded"]
    assert [each.header("accept") for each in receiver.requests] == [["application/json"], ["text/x"], ["*/*"]]
    assert [each.header("authorization") for each in receiver.requests] == [["Bearer one"], [], []]
    assert first.body == third.body == plain.body


def of_user(sub: str, sid: str | None = None, email: str | None = None) -> Delivery:
    iss = "https://id.example"
    return Delivery(id="d", event_id="e", id_given=True, iss=iss, client_id="c", sub=sub, sid=sid, email=email)


async def test_user_and_session_are_not_kept(transport: HttpTransport) -> None:
    """Of any length, and in each spelling; also a short access token. A short `sub` is no part of other words."""
    quoted = b'{"error": "no user a+b@x.io (a%2Bb%40x.io), sub a1, sid 7, Bearer t0ken, a123, 77"}'
    async with scripted(do.answer(404, quoted)) as receiver:
        delivery = of_user("a1", sid="7", email="a+b@x.io")
        extras = RequestExtras(authorization="Bearer t0ken")
        wire = await transport.post(copy_record(request(receiver.url), delivery=delivery, extras=extras))
    shown = '{"error": "no user [email] ([email]), sub [sub], sid [sid], Bearer [token], a123, 77"}'
    assert wire == HttpResponse(status=404, text=shown)


@pytest.mark.parametrize("body", [b'{"error": "other"}', b'\xef\xbb\xbf{"error":\r\n "other", "more": "' + b"x" * 2000])
async def test_error_code_is_read_before_words_are_hidden(transport: HttpTransport, body: bytes) -> None:
    """A `sub` may be a code. Neither the code nor the body is shown."""
    async with scripted(do.answer(409, body)) as receiver:
        extras = RequestExtras(error_member="error")
        wire = await transport.post(copy_record(request(receiver.url), extras=extras, delivery=of_user("other")))
    assert isinstance(wire, HttpResponse)
    assert wire.code == "other"
    assert "other" not in repr(wire)


async def test_hidden_words_with_invisible_characters_are_not_kept(transport: HttpTransport) -> None:
    """Whether the receiver quotes these characters, omits them, or adds others."""
    quoted = "a\u202elice@x.io alice@x.io al\u200bice@x.io {}".format(json.dumps("a\u202elice@x.io"))
    async with scripted(do.answer(404, quoted.encode())) as receiver:
        wire = await transport.post(copy_record(request(receiver.url), delivery=of_user("a\u202el\u00adice@x.io")))
    assert wire == HttpResponse(status=404, text='[sub] [sub] [sub] "[sub]"')


async def test_cookies_are_not_kept(transport: HttpTransport) -> None:
    """A cookie of one client is sent to neither it nor others."""
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
        assert await transport.post(request(receiver.url)) == HttpResponse(status=200)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    """B27, B28, R11, R12: each status has the outcome of the table."""
    async with scripted(do.answer(status, b"" if status in (204, 304) else b"because")) as receiver:
        met = outcome(await transport.post(request(receiver.url)))
    assert isinstance(met, kind)
    assert (met.reason, met.status) == (reason, status)
    assert met.text == ("" if status in (204, 304) else "because")


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("/login", "to /login"),
        ("https://u:hunter2@id.example.com/a?session=s1#x", "to https://id.example.com/a?…"),
        ("//u:p@id.example.com", "to //id.example.com"),
        ("/a\x01b/" + "l" * 5000, "to /ab/" + "l" * 1017),
        (f"/out/{TOKEN}", "to /out/[token]"),
    ],
)
async def test_redirect_location_is_reported(transport: HttpTransport, location: str, text: str) -> None:
    """Without possible secrets: a user, the query, our token. The text of the body follows."""
    async with scripted(do.answer(302, b"moved", headers=(("Location", location),))) as receiver:
        refused = outcome(await transport.post(request(receiver.url)))
    assert refused.text == f"{text}: moved"[:1024]


@pytest.mark.parametrize("name", [b"Location", b"Content-Encoding", b"Retry-After", b"Date", b"X"])
async def test_a_header_that_is_not_utf_8(transport: HttpTransport, name: bytes) -> None:
    """It does not change the outcome, and the text can be encoded."""
    for status, reason in ((302, Reason.REDIRECT), (503, Reason.SERVER_ERROR)):
        head = b"HTTP/1.1 %d F\r\n%b: /\xd4\xea\r\nContent-Length: 4\r\n\r\nbody" % (status, name)
        async with scripted(do.raw(head)) as receiver:
            met = outcome(await transport.post(request(receiver.url)))
        assert (met.reason, met.status) == (reason, status)
        met.text.encode()


@pytest.mark.parametrize(
    ("value", "seconds"), [("Sun, 09 Sep 2001 01:47:40 GMT", 60.0), ("9" * 4000, 999_999_999_999.0)]
)
async def test_retry_after_is_passed_on(transport: HttpTransport, value: str, seconds: float) -> None:
    """For any value. Its effect is tested in tests/model/test_outcome.py."""
    async with scripted(do.answer(503, headers=(("Retry-After", value),))) as receiver:
        met = outcome(await transport.post(request(receiver.url)))
    assert isinstance(met, Failed)
    assert met.retry_after == seconds


async def test_an_informational_response_then_a_broken_answer(transport: HttpTransport) -> None:
    """The status is that of the final response."""
    async with scripted(
        do.raw(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 Scripted\r\nno colon\r\n\r\n")
    ) as receiver:
        met = outcome(await transport.post(request(receiver.url)))
    assert (met.reason, met.status) == (Reason.SERVER_ERROR, 503)


@pytest.mark.parametrize("first", [b"", b"\r\n\r\n"], ids=["at once", "after blank lines"])
async def test_informational_responses_without_end(transport: HttpTransport, first: bytes) -> None:
    """They belong to the head, of which at most 16 KiB are read before a final status."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 500
    async with scripted(do.flood(first, hints)) as receiver:
        met = outcome(await transport.post(request(receiver.url)))
        assert met.reason is Reason.DISCONNECTED
        assert first or "too many interim answers" in met.text
        await receiver.until(lambda receiver: receiver.open == 0)


async def test_an_answer_that_needs_no_length_ends_with_the_connection(transport: HttpTransport) -> None:
    """HTTP/1.0 receivers end the body by closing."""
    async with scripted(do.raw(b"HTTP/1.0 400 Bad Request\r\n\r\nno such session", close=True)) as receiver:
        assert await transport.post(request(receiver.url)) == HttpResponse(status=400, text="no such session")


# ── answers of others ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("broken", [b"", b"no colon\r\n"], ids=["whole", "broken"])
@pytest.mark.parametrize(
    ("status", "line", "firewall"),
    [
        (202, b"x-amzn-waf-action: challenge", "AWS WAF"),
        (405, b"X-Amzn-Waf-Action:  Captcha", "AWS WAF"),
        (403, b"cf-mitigated: challenge", "Cloudflare"),
        (429, b"CF-Mitigated: challenge", "Cloudflare"),
    ],
)
async def test_a_challenge_of_a_firewall_is_not_the_clients_answer(
    transport: HttpTransport, status: int, line: bytes, firewall: str, broken: bytes
) -> None:
    """It is retried, whatever its status, and its pause counts. The firewall has not passed the request on."""
    head = b"HTTP/1.1 %d F\r\n%b\r\nRetry-After: 7\r\nContent-Length: 0\r\n%b\r\n" % (status, line, broken)
    async with scripted(do.raw(head)) as receiver:
        met = outcome(await transport.post(request(receiver.url)))
    assert isinstance(met, Failed)
    assert (met.reason, met.status, met.retry_after, met.ambiguous) == (Reason.INTERCEPTED, status, 7.0, False)
    assert met.text.startswith(f"{firewall} answered")


async def test_only_a_challenge_is_one(transport: HttpTransport) -> None:
    """A firewall may mark the requests that it passes on."""
    marks = (("x-amzn-waf-action", "count"), ("x-amzn-waf-challenge", "challenge"), ("cf-mitigated", ""))
    async with scripted(do.answer(202, headers=marks)) as receiver:
        assert await transport.post(request(receiver.url)) == HttpResponse(status=202)


@pytest.mark.parametrize(
    ("media_type", "body", "is_page"),
    [
        ("text/html; charset=utf-8", b"<!doctype html><title>Shop</title>", True),
        ("Text/HTML", b"\xef\xbb\xbf\r\n <html>", True),
        ("application/xhtml+xml", b"<?xml version='1.0'?><html/>", True),
        ("text/html", b"", False),
        ("text/html; charset=UTF-8", b"OK", False),
        ("application/json", b"<", False),
        ("text/plain", b"<html>", False),
    ],
)
async def test_a_web_page_is_html(transport: HttpTransport, media_type: str, body: bytes, *, is_page: bool) -> None:
    """Frameworks declare an empty body, or `OK`, as HTML: that is no page."""
    async with scripted(do.answer(200, body, headers=(("Content-Type", media_type),))) as receiver:
        met = outcome(await transport.post(request(receiver.url)))
    assert met == Delivered(status=200, text=body.decode("utf-8-sig").strip(), is_web_page=is_page)


# ── broken answers ────────────────────────────────────────────────────────────────────────────────────────────────────


BUSY = b"HTTP/1.1 503 Scripted\r\n"


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(do.flood_headers(503), id="headers without end"),
        pytest.param(do.raw(BUSY + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n"), id="one long header"),
        pytest.param(do.raw(BUSY + b"no colon here\r\n\r\n"), id="no header"),
        pytest.param(do.flood_body(503), id="body without end"),
        pytest.param(do.gzip_bomb(503), id="gzip bomb"),
        pytest.param(do.raw(BUSY + b"Content-Length: 100\r\n\r\nshort", close=True), id="truncated"),
        pytest.param(do.raw(BUSY + b"Content-Length: 100\r\n\r\nshort", reset=True), id="reset in the body"),
        pytest.param(do.raw(BUSY + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), id="wrong chunk size"),
        pytest.param(do.raw(BUSY + b"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", close=True), id="cut chunks"),
        pytest.param(do.raw(BUSY + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain"), id="not gzip"),
    ],
)
async def test_a_broken_response_is_judged_by_its_status(transport: HttpTransport, behaviour: do.Behaviour) -> None:
    """The status line decides; bytes over the limit are not read, and the connection is not used again."""
    async with scripted(behaviour, do.answer(204)) as receiver:
        met = outcome(await transport.post(request(receiver.url)))
        assert (met.reason, met.status) == (Reason.SERVER_ERROR, 503)
        assert outcome(await transport.post(request(receiver.url))).status == 204


@pytest.mark.parametrize("broken", [b"no colon", b"\r\n".join([b"X-Long: " + b"x" * 1000] * 20)])
async def test_broken_response_may_have_retry_after(transport: HttpTransport, broken: bytes) -> None:
    """Its other headers are ignored."""
    async with scripted(do.raw(b"HTTP/1.1 429 Slow down\r\nretry-after:  7\r\n" + broken + b"\r\n\r\n")) as receiver:
        met = outcome(await transport.post(request(receiver.url)))
    assert isinstance(met, Failed)
    assert (met.status, met.retry_after) == (429, 7.0)


async def test_a_body_is_read_up_to_16_kib(transport: HttpTransport) -> None:
    """R11: of an endless body the first KiB is kept and the connection closed."""
    async with scripted(do.flood_body(200)) as receiver:
        assert await transport.post(request(receiver.url)) == HttpResponse(status=200, text="m" * 1024)
        await receiver.until(lambda receiver: receiver.open == 0)


@pytest.mark.parametrize(
    ("before", "piece"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n5;", b"extension" * 1000),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 10_000),
    ],
    ids=["extension", "size"],
)
async def test_chunks_are_not_read_without_end(transport: HttpTransport, before: bytes, piece: bytes) -> None:
    """Chunk extensions do not count as body, and would keep the loop busy until the deadline."""
    async with scripted(do.flood(b"HTTP/1.1 200 OK\r\n" + before, piece, most=1 << 40)) as receiver:
        assert await transport.post(request(receiver.url)) == HttpResponse(status=200)
        await receiver.until(lambda receiver: receiver.open == 0)


async def test_kept_connection_reads_no_unrequested_answers(transport: HttpTransport) -> None:
    """They would fill the memory, at half a gigabyte a second, for as long as the connection is kept."""
    answered = asyncio.Event()
    more = do.flood(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 200, most=1 << 40)

    async def run(peer: do.Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await answered.wait()
        await more.run(peer)

    async with scripted(do.Behaviour(run=run)) as receiver:
        assert await transport.post(request(receiver.url)) == HttpResponse(status=200)
        answered.set()
        await receiver.until(lambda receiver: receiver.open == 0)


async def test_headers_under_16_kib_are_fine(transport: HttpTransport) -> None:
    """Many headers are accepted."""
    many = tuple((f"X-{number}", "y" * 200) for number in range(70))
    async with scripted(do.answer(200, b"ok", many)) as receiver:
        assert await transport.post(request(receiver.url)) == HttpResponse(status=200, text="ok")


async def test_headers_over_16_kib_are_not_read_to_their_end(transport: HttpTransport) -> None:
    """Each is small enough, but their sum is over the limit: the rest is not read."""
    many = tuple((f"X-{number}", "y" * 1000) for number in range(20))
    async with scripted(do.answer(200, b"ok", many)) as receiver:
        assert await transport.post(request(receiver.url)) == HttpResponse(status=200)
        await receiver.until(lambda receiver: receiver.open == 0)


async def test_compressed_body_is_not_unpacked(transport: HttpTransport) -> None:
    """We request `identity`; other encodings are not read."""
    async with scripted(do.gzip_bomb(200)) as receiver:
        wire = await transport.post(request(receiver.url))
    assert wire == HttpResponse(status=200, text="[body not decompressed]")


async def test_the_text_kept_is_printable_and_short(transport: HttpTransport) -> None:
    """At most 1 KiB, without control characters; broken UTF-8 is replaced."""
    body = b'{"error":\r\n\x00\x1b[31m"invalid_request"}\xff ' + "ü".encode() * 2000
    async with scripted(do.answer(400, body)) as receiver:
        wire = await transport.post(request(receiver.url))
    assert isinstance(wire, HttpResponse)
    assert wire.text.startswith('{"error":  [31m"invalid_request"}\ufffd ü')
    assert len(wire.text) <= 1024
    assert wire.text.isprintable()


@pytest.mark.parametrize(
    "echo",
    [TOKEN, f"logout_token={TOKEN}&", f"at {SIGNATURE}.", PAYLOAD[3:40], "x" * 1000 + TOKEN, f"xx{SIGNATURE[:20]}yy"],
)
async def test_an_echo_of_the_token_is_not_kept(transport: HttpTransport, echo: str) -> None:
    """A receiver that quotes the request causes no dead letter with a token."""
    async with scripted(do.answer(400, f"bad token {echo} and Bearer hush-hush".encode())) as receiver:
        wire = await transport.post(request(receiver.url, headers=(("Authorization", "Bearer hush-hush"),)))
    assert isinstance(wire, HttpResponse)
    assert "bad token" in wire.text
    assert "hush" not in wire.text
    assert not any(wire.text[start : start + 15] in TOKEN for start in range(max(1, len(wire.text) - 14)))


OPAQUE = "a1b2c3/d4e5f6+g7h8i9~j0k1l2/m3n4o5+p6q7r8=="  # an access token


@pytest.mark.parametrize(
    ("echo", "text"),
    [
        (f"bad token {OPAQUE[:30]}...", "bad token [token]..."),
        (f"bad token {OPAQUE[5:]}", "bad token [token]"),
        (f"https://api.example/v1/{OPAQUE[:20]} token={OPAQUE[3:]}", "https://api.example/v1/[token] token=[token]"),
        ("https://api.example/v1/users/a1b2c3?id=12345678901234567890", None),
    ],
)
def test_parts_of_an_access_token_are_not_kept(echo: str, text: str | None) -> None:
    """RFC 6750 allows more characters than a logout token has. URLs and paths remain."""
    assert answer_text(echo.encode(), copy_record(request("https://x.io"), secret=OPAQUE)) == (text or echo)


@pytest.mark.parametrize("sub", [f"u-{'0123456789' * 9}", "алиса.иванова.секретная"])
def test_part_of_a_user_at_the_end_of_a_long_response_is_not_kept(sub: str) -> None:
    """Only the start of a response is searched, and hiding users and decoding shortens it."""
    of = Delivery(id="d", event_id="e", id_given=True, iss="https://i", client_id="a", sub=sub, sid=None)
    filler = "" if sub.isascii() else "Ж" * 500
    quoted = json.dumps([f"no session of {sub}", filler, *[f"no session of {sub}"] * 50])
    for shift in range(120):
        text = answer_text((" " * shift + quoted).encode(), copy_record(request("https://x.io"), delivery=of))
        assert sub[:3] not in text


@pytest.mark.parametrize(
    "content_type", ["text/plain; charset={}", 'text/html;Charset="{}"', "text/plain", "a; charset=hex"]
)
@pytest.mark.parametrize(
    ("sub", "charset"),
    [
        ("jürgen.müller", "iso-8859-1"),
        ("Łukasz", "windows-1250"),
        ("алиса", "koi8-r"),
        ("アリス太郎", "shift_jis"),
        ("李小龍", "big5"),
        ("jürgen", "utf-16le"),
        ("jürgen", "utf-8"),
    ],
)
def test_a_user_in_another_charset_is_not_kept(sub: str, charset: str, content_type: str) -> None:
    """The answer is decoded by its charset. Without one, and in a URL, the user is found as it then looks."""
    of = Delivery(id="d", event_id="e", id_given=True, iss="https://i", client_id="a", sub=sub, sid=None)
    asked = copy_record(request("https://x.io"), delivery=of)
    for quoted in (sub, sub.upper()):
        body = f"no session of {quoted}; bye".encode(charset)
        assert answer_text(body, asked, content_type.format(charset)) == "no session of [sub]; bye"
        url = f"at /u/{quote(quoted.encode(charset))}/s"
        assert answer_text(url.encode(), asked, content_type.format(charset)) == "at /u/[sub]/s"
    mislabelled = f"no session of {sub}; bye".encode()
    assert answer_text(mislabelled, asked, f"text/plain; charset={charset}").count(sub[1:]) == 0


@pytest.mark.parametrize("body", [b"\xff%" * 3000, b"<p style='width:100%'>&amp; 50\\u0025 + more</p>" * 120])
def test_a_user_outside_ascii_costs_few_decodings_of_an_answer(body: bytes) -> None:
    """A client chooses its answers: an answer decoded again for each charset blocked the loop for 0.1 s."""

    def count_calls(sub: str) -> int:
        of = Delivery(id="d", event_id="e", id_given=True, iss="https://i", client_id="a", sub=sub, sid=sub[1:])
        asked, calls = copy_record(request("https://x.io"), delivery=of), list[str]()
        sys.setprofile(lambda _frame, event, _arg: calls.append(event))
        try:
            answer_text(body, asked)
        finally:
            sys.setprofile(None)
        return len(calls)

    assert count_calls("алиса.иванова") < count_calls("alice.ivanova") + 40_000


def test_an_answer_is_decoded_by_its_charset() -> None:
    """Its text helps whoever reads the dead letter. An unknown charset counts as UTF-8."""
    asked = request("https://x.io")
    assert answer_text("ungültig".encode("latin-1"), asked, "text/plain; charset=ISO-8859-1") == "ungültig"
    assert answer_text("ungültig".encode(), asked, "text/plain; charset=punycode") == "ungültig"


BASIC = base64.b64encode(b"notifier:pass/word???").decode()  # with a slash in it


@pytest.mark.parametrize(
    "echo",
    [
        json.dumps({"error": f"bad Basic {BASIC}"}).replace("/", "\\/"),
        f"bad basic {quote(BASIC, safe='')}",
        "no user notifier:pass/word???",
        "the password pass/word??? is wrong",
        "bad key: 0123456789abcdef...",
        f"not for this proxy: {base64.b64encode(b'us:hush-hush').decode()}",
    ],
)
async def test_an_echo_of_a_header_is_not_kept(transport: HttpTransport, echo: str) -> None:
    """Neither escaped, decoded nor in part; nor the proxy's password."""
    headers = (("Authorization", f"Basic {BASIC}"), ("X-Key", "0123456789abcdef0123456789abcdef"))
    async with scripted(do.answer(401, echo.encode())) as receiver:
        proxy = receiver.origin.replace("http://", "http://us:hush-hush@")
        wire = await transport.post(request("http://shop.example.com/", headers=headers, proxy=proxy))
    assert isinstance(wire, HttpResponse)
    assert "[header]" in wire.text
    for secret in (BASIC[:10], "word", "89abcdef", "hush", "dXM6"):
        assert secret not in wire.text.replace("the password", "")


async def test_a_request_without_a_body_is_a_get(transport: HttpTransport) -> None:
    """No form, no length; the query is kept byte for byte, and a POST can use the connection afterwards."""
    async with scripted() as receiver:
        asked = copy_record(request(f"{receiver.url}?iss=a%2Fb&sid=5F2A", headers=(("X-Own", "x"),)), body=None)
        assert await transport.post(asked) == HttpResponse(status=200)
        assert await transport.post(asked) == HttpResponse(status=200)
        assert await transport.post(request(receiver.url)) == HttpResponse(status=200)
    first, second, third = receiver.requests
    assert (first.method, first.target, first.body) == ("GET", "/backchannel-logout?iss=a%2Fb&sid=5F2A", b"")
    assert first.header("x-own") == ["x"]
    for name in ("content-type", "content-length", "transfer-encoding"):
        assert not first.header(name)
    assert (second.method, third.method, third.token) == ("GET", "POST", TOKEN)
