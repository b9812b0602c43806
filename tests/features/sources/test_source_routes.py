"""`POST /v1/events/{source}` on a real socket: proofs, queued content, and refusals."""

import asyncio
import base64
import contextlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from notifier.features.sources.expressions import Expression
from notifier.features.sources.post_rules import HttpSource
from notifier.features.sources.source import Source
from notifier.features.sources.source_proofs import BodySignature, HeaderSecret
from notifier.features.sources.source_routes import SourceRoutes
from notifier.features.sources.source_settings import WebsubSettings
from notifier.model.documents.sourced import to_received
from notifier.model.errors import QueueUnavailable
from notifier.model.message import Kind, Lane, Message, MessageDraft
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.publishing.route_steps import ApiLimits
from tests.features.sources.set_transmitter import SetTransmitter
from tests.features.sources.sns_stand_in import ARN, CONFIRMATION, NOTIFICATION, Sns, standing_in
from tests.features.sources.sns_stand_in import signed as posted
from tests.network.listeners.described import described
from tests.publishing.serving import ISS, NOW, accept, serving, sources_of, token
from tests.system.waiting import until
from tests.tokens.transmitter import CLAIMS, key, public
from tests.tokens.transmitter import signed as set_of

LIMITS = ApiLimits(max_event=2000, requests=6, requests_of_token=3)
BODY = b'{"eventType": "user.session.end",\n "actor": {"id": "raw-sub-77"}}'
SOURCES = (
    HttpSource(
        compiled=Source(
            name="okta",
            members={},
            secret_headers=frozenset({"authorization"}),
            used_names=frozenset({"$headers", "x-name"}),
        ),
        proof=HeaderSecret(header="Authorization", values=(b"Bearer old-s3cret", b"n\xc3\xa9w-s3cret")),
        challenge="okta",
    ),
    HttpSource(
        compiled=Source(name="wso2", members={}, secret_headers=frozenset({"x-wso2-event-signature"})),
        proof=BodySignature(
            header="X-WSO2-Event-Signature", algorithm="sha256", prefix="sha256=", secrets=(b"one", b"two")
        ),
        challenge="websub",
    ),
    HttpSource(
        compiled=Source(name="sha1", members={}, secret_headers=frozenset({"x-hub-signature"})),
        proof=BodySignature(header="x-hub-signature", algorithm="sha1", prefix="", secrets=(b"one",)),
    ),
    HttpSource(
        compiled=Source(name="any", members={}, as_json=True, when=Expression("@ == `null`")),
        proof=HeaderSecret(header="Authorization", values=(b"Bearer old-s3cret",)),
    ),
)


class Queue:
    """Takes messages, or does whatever `behave` does instead."""

    def __init__(self) -> None:
        self.taken: list[tuple[Lane, MessageDraft]] = []
        self.behave: Callable[[], Awaitable[None]] | None = None

    async def publish(self, lane: Lane, message: MessageDraft) -> None:
        if self.behave is not None:
            await self.behave()
        self.taken.append((lane, message))

    def only(self) -> Message:
        """The one message, as a worker reads it."""
        [(lane, taken)] = self.taken
        message = Message(
            lane=lane, body=taken.body, tag=1, kind=taken.kind, headers=taken.headers, content_type=taken.content_type
        )
        return to_received(message)


class Api:
    """A listener with its queue, and a client to talk to it."""

    def __init__(
        self,
        queue: Queue,
        url: str,
        http: aiohttp.ClientSession,
        sources: dict[str, HttpSource],
        routes: SourceRoutes,
    ) -> None:
        self.queue, self.url, self.http, self.sources, self.routes = queue, url, http, sources, routes

    @property
    def counted(self) -> Mapping[tuple[str, int], float]:
        """How many requests of a source got an answer of this status."""
        [family] = self.routes.families()
        return {(one.labels["source"], int(one.labels["status"])): one.value for one in family.samples}

    async def counts(self) -> Mapping[tuple[str, int], float]:
        """The same, to wait for."""
        return self.counted

    async def ask(
        self, source: str, headers: Mapping[str, str] | list[tuple[str, str]], body: bytes = BODY, method: str = "POST"
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Return status, document and headers. The body is JSON unless a header sets another type."""
        sent = [("Content-Type", "application/json"), *(headers.items() if isinstance(headers, Mapping) else headers)]
        if sum(name.lower() == "content-type" for name, _ in sent) > 1:
            del sent[0]
        url = f"{self.url}/v1/events/{source}"
        async with self.http.request(method, url, data=body, headers=sent) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None, answer.headers


@contextlib.asynccontextmanager
async def answering(limits: ApiLimits = LIMITS) -> AsyncIterator[Api]:
    """Serve an API with tokens, which these routes do not require. Its limits of size and number are small."""
    queue, sources = Queue(), {source.name: source for source in SOURCES}
    routes = SourceRoutes(sources.get, queue.publish, limits, lambda: NOW, lambda: "made-up-id")
    app = build_api_app(EventRequests(accept, sources_of(lambda: (token("idp"),)), limits), routes.routes())
    async with serving(app) as listener, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
        yield Api(queue, listener.url, http, sources, routes)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with answering() as subject:
        yield subject


def signed(body: bytes, secret: bytes = b"one", algorithm: str = "sha256") -> bytes:
    return hmac.new(secret, body, algorithm).digest()


OKTA = {"Authorization": "Bearer old-s3cret"}


async def test_a_message_is_queued_unchanged(api: Api) -> None:
    """Byte for byte, with its source and its headers, as a message that only notifier writes."""
    status, document, _ = await api.ask("okta", {**OKTA, "X-Okta-Request-Id": "r1", "Traceparent": "00-1"})
    assert (status, document) == (202, {"id": "made-up-id"})
    [(lane, taken)] = api.queue.taken
    assert (lane, taken.kind, taken.message_id) == (Lane.EVENTS, Kind.SOURCED, "made-up-id")
    message = api.queue.only()
    assert (message.source, message.body, message.content_type) == ("okta", BODY, "application/json")
    assert (message.timestamp, message.user_id) == (NOW, "okta")
    assert (message.headers["x-okta-request-id"], message.headers["traceparent"]) == ("r1", "00-1")
    assert api.counted == {("okta", 202): 1}


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ("Bearer old-s3cret", True),
        ("n\u00e9w-s3cret", True),
        ("  Bearer old-s3cret ", True),
        ("old-s3cret", False),
        ("bearer old-s3cret", False),
        ("Bearer old-s3cre", False),
        ("Bearer idp-secret", False),
        ("", False),
        (None, False),
    ],
)
async def test_a_secret_in_a_header(api: Api, value: str | None, right: bool) -> None:
    """The whole value counts. Both secrets are valid during a replacement; a token of the API is not."""
    status, document, _ = await api.ask("okta", {} if value is None else {"Authorization": value})
    assert status == (202 if right else 401)
    assert len(api.queue.taken) == right
    assert api.counted == {("okta", status): 1}
    assert right or document["title"] == "The proof of the source is missing or wrong"


async def test_a_repeated_proof_is_refused(api: Api) -> None:
    """Whoever reads the first and whoever reads the last must not differ."""
    twice = [("X-WSO2-Event-Signature", "sha256=" + signed(BODY).hex())] * 2
    assert (await api.ask("wso2", twice))[0] == 401
    assert (await api.ask("okta", [("Authorization", "x"), ("Authorization", "Bearer old-s3cret")]))[0] in (400, 401)
    assert api.queue.taken == []


RIGHT = signed(BODY)


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ("sha256=" + RIGHT.hex(), True),
        ("sha256=" + RIGHT.hex().upper(), True),
        ("SHA256=" + RIGHT.hex(), True),
        ("sha256=" + base64.b64encode(RIGHT).decode(), True),
        ("sha256=" + base64.urlsafe_b64encode(RIGHT).decode().rstrip("="), True),
        ("sha256=" + signed(BODY, b"two").hex(), True),
        ("sha256=" + signed(BODY, b"three").hex(), False),
        ("sha256=" + signed(BODY, b"one", "sha512").hex(), False),
        ("sha256=" + signed(BODY + b" ").hex(), False),
        (RIGHT.hex(), False),
        ("sha1=" + RIGHT.hex(), False),
        ("sha256=", False),
        ("", False),
        (None, False),
        ("sha256=\u00e9", False),
    ],
)
async def test_a_signature_of_the_body(api: Api, value: str | None, right: bool) -> None:
    """In hexadecimal or base64, by either secret; never without its prefix, nor of another body."""
    status, _, _ = await api.ask("wso2", {} if value is None else {"x-wso2-event-signature": value})
    assert status == (202 if right else 401)
    assert len(api.queue.taken) == right


@pytest.mark.parametrize("name", ["ce-id", "CE-Type", "cloudEvents_id"])
async def test_a_signed_body_with_cloud_event_headers_is_refused(api: Api, name: str) -> None:
    """Its headers are not signed: with another id, a captured event would be a new one."""
    proof = {"x-wso2-event-signature": f"sha256={signed(BODY).hex()}"}
    status, document, _ = await api.ask("wso2", {**proof, name: "another"})
    assert (status, api.queue.taken) == (400, [])
    assert f"{name.lower()} is not signed: send structured CloudEvents" in document["title"]
    assert (await api.ask("wso2", {**proof, "Content-Type": "application/cloudevents+json"}))[0] == 202
    assert (await api.ask("okta", {**OKTA, name: "another"}))[0] == 202  # a secret header proves no more of the body


async def test_headers_give_a_signed_body_no_id(api: Api) -> None:
    """MassTransit's raw serializer writes the id into a header. Expressions have the others."""
    given = {"MessageId": "m", "X-Tenant": "demo"}
    await api.ask("wso2", {"x-wso2-event-signature": f"sha256={signed(BODY).hex()}", **given})
    headers = api.queue.only().headers
    assert headers["x-tenant"] == "demo"
    assert not [name for name in headers if "message" in name]


async def test_secrets_are_neither_queued_nor_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """No header that may hold a secret is queued, answered or logged."""
    secrets = {
        "Cookie": "s3cret-a", "Proxy-Authorization": "s3cret-b", "X-Api-Key": "s3cret-c",
        "X-Forwarded-Access-Token": "s3cret-d", "Ocp-Apim-Subscription-Key": "s3cret-e",
    }  # fmt: skip
    with caplog.at_level(logging.DEBUG), capture_logs() as lines:
        assert (await api.ask("okta", {**OKTA, **secrets, "Idempotency-Key": "i1", "ce-id": "7"}))[0] == 202
        _, document, headers = await api.ask("okta", {**secrets, "Authorization": "wrong-s3cret"})
    _, taken = api.queue.taken[0]
    assert "s3cret" not in repr(taken) + repr(document) + repr(headers) + caplog.text + repr(SOURCES) + repr(lines)
    message = api.queue.only()
    assert {"idempotency-key", "ce-id"} <= set(message.headers)
    api.queue.taken.clear()
    sign = {"X-WSO2-Event-Signature": "sha256=" + RIGHT.hex(), "Authorization": "s3cret"}
    assert (await api.ask("wso2", sign))[0] == 202
    assert not {"authorization", "x-wso2-event-signature"} & set(api.queue.only().headers)


async def test_headers_are_bounded_and_any_bytes_pass(api: Api) -> None:
    """They must fit a frame of the broker: 4 KiB, headers named by the source's expressions first."""
    many = {f"x-{number}": "a" * 900 for number in range(20)}
    sent = [*many.items(), ("X-Name", "J\u00fcrgen"), ("X-Name", "2"), *OKTA.items()]
    assert (await api.ask("okta", sent))[0] == 202
    kept = api.queue.only().headers
    assert kept["x-name"] == "J\u00fcrgen, 2"
    assert 2 < len(kept) < 8


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json; charset=utf-8", 202),
        ("application/cloudevents+json", 202),
        ("application/x-ndjson", 202),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/secevent+jwt", 415),
        ("", 415),
    ],
)
async def test_the_kinds_of_body(api: Api, kind: str, status: int) -> None:
    """JSON of any kind; nothing that a form of a web page can send."""
    assert (await api.ask("okta", {**OKTA, "Content-Type": kind}))[0] == status
    assert len(api.queue.taken) == (status == 202)


@pytest.mark.parametrize("kind", ["text/plain; charset=UTF-8", "", "x/" + "y" * 300])
async def test_a_source_of_json_takes_any_kind_of_body(api: Api, kind: str) -> None:
    """SNS declares its JSON as plain text. An empty body is accepted where `when` handles it."""
    for body in (BODY, b""):
        assert (await api.ask("any", {**OKTA, "Content-Type": kind}, body))[0] == 202
        message = api.queue.only()
        assert (message.body, message.content_type) == (body, kind[:255])
        api.queue.taken.clear()
    assert (await api.ask("any", {**OKTA, "Content-Type": kind, "Content-Encoding": "gzip"}))[0] == 415


@pytest.mark.parametrize(("kind", "stored"), [("x/\u00e9", "x/?"), ("x/json; a=" + "\u00e9" * 200, "x/json")])
async def test_a_kind_of_body_is_stored_as_the_queue_takes_it(api: Api, kind: str, stored: str) -> None:
    """A queue on AMQP takes 255 bytes of ASCII."""
    assert (await api.ask("any", {**OKTA, "Content-Type": kind}))[0] == 202
    assert api.queue.only().content_type == stored
    assert (await api.ask("any", {"Content-Type": kind}))[0] == 401


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b" \n", {}, 400),
        (b"x" * 3000, {}, 413),
        (b"\x1f\x8b", {"Content-Encoding": "gzip"}, 415),
        (b"not JSON: it becomes a dead letter", {}, 202),
    ],
)
async def test_bodies_that_are_not_taken(api: Api, body: bytes, headers: dict[str, str], status: int) -> None:
    """Empty, too large, compressed. What a worker cannot read becomes a dead letter, so it is taken."""
    assert (await api.ask("okta", {**OKTA, **headers}, body))[0] == status
    assert api.counted == {("okta", status): 1}


async def _away() -> None:
    raise QueueUnavailable("amqp://notifier:s3cret@broker/ is unreachable")


async def _never() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("behave", [_away, _never])
async def test_503_while_the_queue_is_unavailable(behave: Callable[[], Awaitable[None]]) -> None:
    """So that the sender tries again; 202 comes only when the message is durable."""
    async with answering(ApiLimits(accept_timeout=0.1)) as api:
        api.queue.behave = behave
        status, document, headers = await api.ask("okta", OKTA)
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "s3cret" not in repr(document)


async def test_a_removed_source_is_404(api: Api) -> None:
    """From the reload on that removes it, even with its secret. The answer has a remedy."""
    assert (await api.ask("okta", OKTA))[0] == 202
    del api.sources["okta"]
    status, document, _ = await api.ask("okta", OKTA)
    assert status == 404
    assert "sources.NAME.http" in document["title"]
    assert api.counted == {("okta", 202): 1}


async def test_the_verification_request_of_an_okta_hook(api: Api) -> None:
    """Its value is returned to a caller with the secret. Sources without that preset answer no GET."""
    challenge = {"X-Okta-Verification-Challenge": 'Me_rShK8"JHs'}
    status, document, _ = await api.ask("okta", {**OKTA, **challenge}, b"", "GET")
    assert (status, document) == (200, {"verification": 'Me_rShK8"JHs'})
    assert (await api.ask("okta", OKTA, b"", "GET"))[0] == 400
    assert (await api.ask("okta", challenge, b"", "GET"))[0] == 401
    assert (await api.ask("nobody", challenge, b"", "GET"))[0] == 404
    status, _, headers = await api.ask("sha1", challenge, b"", "GET")
    assert (status, headers["Allow"]) == (405, "POST")
    assert api.queue.taken == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("hub.mode=subscribe&hub.topic=t&hub.challenge=a%3Cb%3E&hub.lease_seconds=9", (200, "a<b>", "text/plain")),
        ("hub.mode=unsubscribe&hub.topic=t&hub.challenge=7", (404, None, None)),
        ("hub.mode=denied&hub.challenge=7", (400, None, None)),
        ("hub.mode=subscribe", (400, None, None)),
        ("hub.mode=subscribe&hub.challenge=" + "a" * 3000, (400, None, None)),
    ],
    ids=range(5),
)
async def test_the_verification_request_of_a_websub_hub(
    api: Api, query: str, expected: tuple[int, str | None, str | None]
) -> None:
    """WSO2's cloud sends it, without a proof. It comes back as plain text, which no browser runs; not for an end."""
    async with api.http.get(f"{api.url}/v1/events/wso2?{query}") as answer:
        assert answer.status == expected[0]
        if expected[0] == 200:
            assert (await answer.text(), answer.content_type) == expected[1:]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("may_end", "query", "status"),
    [
        (False, "hub.mode=subscribe&hub.topic=https%3A%2F%2Fhub%2Fa%3Fb", 200),
        (False, "hub.mode=subscribe&hub.topic=https%3A%2F%2Fhub%2Fother", 404),
        (False, "hub.mode=subscribe", 404),
        (False, "hub.mode=subscribe&hub.topic=https%3A%2F%2Fhub%2Fa%3Fb&hub.topic=other", 404),
        (False, "hub.mode=unsubscribe&hub.topic=https%3A%2F%2Fhub%2Fa%3Fb", 404),
        (True, "hub.mode=unsubscribe&hub.topic=https%3A%2F%2Fhub%2Fa%3Fb", 200),
        (True, "hub.mode=unsubscribe&hub.topic=https%3A%2F%2Fhub%2Fother", 404),
    ],
)
async def test_a_websub_hub_verifies_the_configured_subscription_alone(
    api: Api, may_end: bool, query: str, status: int
) -> None:
    """The request has no proof: anybody who can reach the hub causes it. Each answer is logged, once a minute."""
    topic = "https://hub/a?b"
    api.sources["wso2"] = replace(
        api.sources["wso2"], websub=WebsubSettings(topic=topic, unsubscribe="allow" if may_end else "refuse")
    )
    with capture_logs() as lines:
        for _ in range(2):
            async with api.http.get(f"{api.url}/v1/events/wso2?{query}&hub.challenge=7") as answer:
                assert answer.status == status
                assert (await answer.text() == "7") == (status == 200)
    [line] = lines
    if status == 200:
        assert (line["event"], line["mode"], line["topic"]) == ("sender_allowed", query[9:].partition("&")[0], topic)
    else:
        assert (line["event"], line["status"]) == ("source_refused", 404)


ASKS = {"WebHook-Request-Origin": "eventgrid.azure.net", "WebHook-Request-Callback": "https://evil.example/c"}


async def test_a_cloud_events_validation_request_is_answered(api: Api) -> None:
    """Event Grid sends it. Without a proof there is no answer, and no address in the request is called."""
    with capture_logs() as lines:
        status, document, headers = await api.ask("okta", {**OKTA, **ASKS}, b"", "OPTIONS")
    assert (status, document, headers["Allow"]) == (200, None, "POST")
    assert (headers["WebHook-Allowed-Origin"], headers["WebHook-Allowed-Rate"]) == ("eventgrid.azure.net", "*")
    logged = {"event": "sender_allowed", "source": "okta", "origin": "eventgrid.azure.net", "log_level": "info"}
    assert lines == [logged]
    for source, sent, expected in (
        ("okta", ASKS, 401),
        ("okta", {**ASKS, "Authorization": "wrong"}, 401),
        ("okta", OKTA, 400),
        ("okta", {**OKTA, "WebHook-Request-Origin": "a b"}, 400),
        ("wso2", ASKS, 401),
        ("wso2", {**ASKS, "X-WSO2-Event-Signature": "sha256=" + signed(b"").hex()}, 200),
        ("nobody", ASKS, 404),
    ):
        status, _, headers = await api.ask(source, sent, b"", "OPTIONS")
        assert (status, "WebHook-Allowed-Origin" in headers) == (expected, expected == 200), (source, sent)
    api.sources["kc"] = HttpSource(compiled=Source(name="kc", members={}), proof=SetTransmitter().verifier)
    status, _, headers = await api.ask("kc", ASKS, b"", "OPTIONS")
    assert (status, headers["Allow"]) == (405, "POST")
    assert api.queue.taken == []


async def test_the_id_of_an_answer_is_in_the_log(api: Api) -> None:
    """Once the message is durable. Whoever has the answer finds when it came; so for a token, whose answer is empty."""
    api.sources["kc"] = HttpSource(
        compiled=Source(name="kc", members={}), proof=SetTransmitter(public(key("P-256"))).verifier
    )
    with capture_logs() as lines:
        _, document, _ = await api.ask("okta", OKTA)
        await api.ask("kc", {"Content-Type": "application/secevent+jwt"}, set_of())
        api.queue.behave = _away
        await api.ask("okta", OKTA)
    taken = [line for line in lines if line["event"] == "source_taken"]
    assert [(line["source"], line["id"], line["log_level"]) for line in taken] == [
        ("okta", document["id"], "info"),
        ("kc", "made-up-id", "info"),
    ]


async def test_refusals_are_logged_once_a_minute(api: Api) -> None:
    """A sender of webhooks shows its answers to nobody."""
    with capture_logs() as lines:
        for _ in range(3):
            await api.ask("okta", {"Authorization": "wrong-s3cret"})
        await api.ask("wso2", {"Content-Type": "text/plain"})
    assert [(line["event"], line["source"], line["status"]) for line in lines] == [
        ("source_refused", "okta", 401),
        ("source_refused", "wso2", 415),
    ]
    assert "s3cret" not in repr(lines)
    assert api.counted == {("okta", 401): 3, ("wso2", 415): 1}


async def test_a_disconnected_sender_counts_as_408(api: Api) -> None:
    """It counts as 408, with a reason in the log: an alert is about 500."""
    with capture_logs() as lines:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
        head = b"POST /v1/events/wso2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n{")
        await reader.readuntil(b"100 Continue\r\n\r\n")
        writer.close()
        await until(api.counts, bool)
    assert api.counted == {("wso2", 408): 1}
    logged = [(line["status"], line["reason"]) for line in lines if line["event"] == "source_refused"]
    assert logged == [(408, "The body did not come whole")]


async def test_a_security_event_token_is_answered_by_rfc_8935(api: Api) -> None:
    """202 without a body; 400 with `err` and `description`; 503 while keys cannot be read. Its claims are queued.

    Its media type is required even of a source whose bodies are JSON, whatever their type (`content_type: json`).
    """
    transmitter = SetTransmitter(public(key("P-256")))
    compiled = Source(name="kc", members={}, as_json=True)
    api.sources["kc"] = HttpSource(compiled=compiled, proof=transmitter.verifier)
    kind = {"Content-Type": "application/secevent+jwt"}
    status, document, _ = await api.ask("kc", kind, set_of())
    assert (status, document) == (202, None)
    message = api.queue.only()
    assert (json.loads(message.body), message.content_type, message.source) == (CLAIMS, "application/json", "kc")
    assert set_of().split(b".")[2] not in repr(api.queue.taken).encode()
    status, document, headers = await api.ask("kc", kind, set_of({**CLAIMS, "aud": "else"}))
    assert (status, document) == (
        400,
        {"err": "invalid_audience", "description": "aud does not name this receiver"},
    )
    assert (headers["Content-Type"], headers["Content-Language"]) == ("application/json; charset=utf-8", "en")
    status, document, _ = await api.ask("kc", {**kind, "ce-id": "another"}, set_of())
    assert (status, document["err"]) == (400, "invalid_request")
    assert "The header ce-id is not signed" in document["description"]
    assert (await api.ask("kc", {"Content-Type": "application/json"}, set_of()))[0] == 415
    assert (await api.ask("kc", kind, b"x" * 3000))[0] == 413
    assert (await api.ask("kc", kind, b""))[1]["err"] == "invalid_request"
    api.sources["kc"] = HttpSource(compiled=Source(name="kc", members={}), proof=SetTransmitter().verifier)
    status, _, headers = await api.ask("kc", kind, set_of(kid="k9"))
    assert status == 400
    away = SetTransmitter()
    away.away = True
    api.sources["kc"] = HttpSource(compiled=Source(name="kc", members={}), proof=away.verifier)
    status, _, headers = await api.ask("kc", kind, set_of())
    assert (status, headers["Retry-After"]) == (503, "5")
    assert len(api.queue.taken) == 1


PLAIN = {"Content-Type": "text/plain; charset=UTF-8"}


@contextlib.asynccontextmanager
async def subscribed(api: Api, folder: Path) -> AsyncIterator[Sns]:
    """Add the source `sns`, and yield the stand-in that serves its certificates."""
    async with standing_in(folder) as sns:
        api.sources["sns"] = HttpSource(compiled=Source(name="sns", members={}), proof=sns.verifier)
        yield sns


async def test_the_signed_content_of_an_sns_message_is_queued(api: Api, tmp_path: Path) -> None:
    """Neither the signature nor unsigned members. Errors are answered and logged."""
    async with subscribed(api, tmp_path) as sns:
        assert (await api.ask("sns", PLAIN, posted()))[:2] == (202, {"id": "made-up-id"})
        message = api.queue.only()
        assert (json.loads(message.body), message.content_type) == (NOTIFICATION, "application/json")
        with capture_logs() as lines:
            status, document, headers = await api.ask("sns", PLAIN, posted(Message="{}"))
        assert (status, headers["WWW-Authenticate"]) == (401, "Source")
        assert document["title"] == "The message is not accepted: the signature is wrong"
        assert [(line["event"], line["reason"]) for line in lines] == [("source_refused", document["title"])]
        assert (await api.ask("sns", {**PLAIN, "ce-id": "another"}, posted()))[0] == 400
        assert (await api.ask("sns", {**PLAIN, "Content-Encoding": "gzip"}, posted()))[0] == 415
        assert (await api.ask("sns", PLAIN, b"x" * 3000))[0] == 413
        sns.status = 500
        elsewhere = posted(SigningCertURL=f"{sns.verifier.topic.server}/SimpleNotificationService-1.pem")
        status, _, headers = await api.ask("sns", PLAIN, elsewhere)
        assert (status, headers["Retry-After"]) == (503, "5")
    assert len(api.queue.taken) == 1


async def test_a_subscription_is_confirmed_and_its_end_is_logged(api: Api, tmp_path: Path) -> None:
    """Nothing is queued, and no line has the token, by which anybody could confirm. SNS sends it again after a 503."""
    ended = {**CONFIRMATION, "Type": "UnsubscribeConfirmation"}
    async with subscribed(api, tmp_path) as sns:
        with capture_logs() as lines:
            assert (await api.ask("sns", PLAIN, posted(CONFIRMATION, Message="forged")))[0] == 401
            assert len(sns.asked) == 1
            assert (await api.ask("sns", PLAIN, posted(CONFIRMATION)))[:2] == (200, {})
            assert sns.asked[1:] == [f"/?Action=ConfirmSubscription&TopicArn={ARN}&Token=t0k3n"]
            assert (await api.ask("sns", PLAIN, posted(ended)))[:2] == (200, {})
            assert len(sns.asked) == 2
            sns.status = 500
            status, _, headers = await api.ask("sns", PLAIN, posted(CONFIRMATION))
            assert (status, headers["Retry-After"]) == (503, "5")
    logged = [(line["event"], line["log_level"]) for line in lines if line["event"].startswith("sns_")]
    assert logged == [("sns_subscribed", "info"), ("sns_unsubscribed", "warning"), ("sns_unconfirmed", "warning")]
    assert [line["topic_arn"] for line in lines if line["event"].startswith("sns_")] == [ARN] * 3
    assert "t0k3n" not in repr(lines)
    assert (api.queue.taken, api.counted["sns", 200]) == ([], 2)


@contextlib.asynccontextmanager
async def slow_bodies(api: Api, count: int, source: str = "wso2", method: str = "POST") -> AsyncIterator[None]:
    """Open `count` connections, each with a request whose body is never completed."""
    head = f"{method} /v1/events/{source} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
            stack.callback(writer.close)
            writer.write(head + b"Content-Length: 9\r\n\r\n{")
        yield


SIGNATURE = {"X-WSO2-Event-Signature": f"sha256={signed(BODY).hex()}"}


@pytest.mark.parametrize("method", ["POST", pytest.param("OPTIONS", marks=pytest.mark.full)])
async def test_slow_unverified_bodies_block_no_verified_sender(method: str) -> None:
    """Where the proof is in the body, they share few places: with senders of that source, and in all with its like.

    A proof in a header comes before the body, as does a token. So these wait for no stranger.
    """
    async with answering(ApiLimits(unverified_timeout=60, body_timeout=60)) as api:
        async with slow_bodies(api, 140, "wso2", method), slow_bodies(api, 140, "okta", method):
            await until(lambda: api.ask("wso2", SIGNATURE), lambda answer: answer[0] == 429)
            others = {"x-hub-signature": signed(BODY, algorithm="sha1").hex()}
            statuses = [(await api.ask("okta", OKTA))[0] for _ in range(5)]
            statuses += [(await api.ask("sha1", others))[0] for _ in range(5)]
            assert statuses == [202] * 10
            async with slow_bodies(api, 140, "sha1"):
                await until(lambda: api.ask("sha1", others), lambda answer: answer[0] == 429)
                assert (await api.ask("okta", OKTA))[0] == 202
                event = {"iss": ISS, "sub": "alice", "sid": "s1", "clients": ["shop"]}
                bearer = {"Authorization": "Bearer idp-secret"}
                async with api.http.post(f"{api.url}/v1/events", json=event, headers=bearer) as answer:
                    assert answer.status == 202
        await until(lambda: api.ask("wso2", SIGNATURE), lambda answer: answer[0] == 202)


async def test_a_body_without_proof_has_less_time() -> None:
    """So that the next ones have its place."""
    limits = ApiLimits(unverified_of_source=1, unverified_timeout=1, body_timeout=60)
    async with answering(limits) as api, slow_bodies(api, 1):
        await until(api.counts, lambda counted: counted.get(("wso2", 408)) == 1)
        assert (await api.ask("wso2", SIGNATURE))[0] == 202


async def test_one_source_does_not_take_every_place() -> None:
    """Each has as many as a token."""
    entered, free = asyncio.Semaphore(0), asyncio.Event()

    async def wait() -> None:
        entered.release()
        await free.wait()

    async with answering(ApiLimits(requests_of_token=3, accept_timeout=60)) as api:
        api.queue.behave = wait
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(api.ask("okta", OKTA)) for _ in range(3)]
            for _ in running:
                await entered.acquire()
            status, _, headers = await api.ask("okta", OKTA)
            assert (status, headers["Retry-After"]) == (429, "1")
            running.append(group.create_task(api.ask("wso2", SIGNATURE)))
            await entered.acquire()
            free.set()
        assert [task.result()[0] for task in running] == [202] * 4


@pytest.mark.full
def test_answers_of_sources_match_their_description() -> None:
    """Every answer is as it is described."""
    proof = HeaderSecret(header="Authorization", values=(b"Bearer idp-secret",))
    source = HttpSource(compiled=Source(name="okta", members={}), proof=proof, challenge="okta")
    routes = SourceRoutes({"okta": source}.get, Queue().publish, LIMITS)
    requests = EventRequests(accept, sources_of(lambda: (token("idp"),)))
    operations = described(build_api_app(requests, routes.routes()), examples=25)
    assert [each for each in operations if "source" in each] == [
        "GET /v1/events/{source}",
        "OPTIONS /v1/events/{source}",
        "POST /v1/events/{source}",
    ]


async def test_a_document_of_a_sender_that_sends_once_goes_another_way() -> None:
    """Equal documents have one id, so that a spool recognises copies; others go straight to the queue."""
    queue, given = Queue(), list[tuple[str, str, Lane]]()

    class Once:
        def add_senders(self, list_names: Callable[[], Collection[str]]) -> None: ...

        async def publish(self, sender: str, event_id: str, lane: Lane, message: MessageDraft, deadline: float) -> None:
            assert deadline > asyncio.get_running_loop().time()
            assert message.body == BODY
            given.append((sender, event_id, lane))

    proof = HeaderSecret(header="Authorization", values=(b"Bearer idp-secret",))
    plain = HttpSource(compiled=Source(name="plain", members={}), proof=proof)
    sources = {"plain": plain, "once": replace(plain, compiled=Source(name="once", members={}), sends_once=True)}
    routes = SourceRoutes(sources.get, queue.publish, LIMITS, once=Once())
    app = build_api_app(EventRequests(accept, sources_of(lambda: (token("idp"),))), routes.routes())
    async with serving(app) as listener, aiohttp.ClientSession() as http:
        api = Api(queue, listener.url, http, sources, routes)
        for name in ("once", "once", "plain"):
            assert (await api.ask(name, {"Authorization": "Bearer idp-secret"}))[0] == 202
    assert (len(given), len(set(given)), given[0][0], given[0][2]) == (2, 1, "source/once", Lane.EVENTS)
    assert len(queue.taken) == 1
