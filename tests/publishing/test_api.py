"""Test `POST /v1/events` on a real socket: accepted and refused events, error texts, and secrets."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from notifier.delivery.facts import Fact, MembersMisspelt
from notifier.model.errors import QueueUnavailable, TopologyMismatch
from notifier.model.message import Lane
from notifier.model.registry import Issuer, Registry
from notifier.model.session_ended import MisspeltMember, SessionEnded
from notifier.model.trouble import merge_troubles
from notifier.network.listeners.request_counts import STATUS_CLASSES, RequestCounts
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.publishing.route_steps import ApiLimits
from notifier.settings.api_tokens import ApiToken
from tests.publishing.serving import CLIENTS, ISS, NOW, serving, sources_of, token

CLOSED = "https://closed.example.com"
EVENT = {"iss": ISS, "sub": "raw-sub-77", "sid": "raw-sid-88", "clients": ["shop"]}
REGISTRY = Registry(
    issuers={
        ISS: Issuer(iss=ISS, event_types=frozenset({"session.ended"})),
        CLOSED: Issuer(iss=CLOSED, publishers=frozenset({"idp"})),
    },
    clients={ISS: CLIENTS},
)


TOKENS = (token("idp"), token("other"), token("reader", "read"), token("limited", issuers=frozenset({CLOSED})))


class Queue:
    """Accept events, or run `behave` instead."""

    def __init__(self) -> None:
        self.taken: list[tuple[SessionEnded, Lane]] = []
        self.behave: Callable[[], Awaitable[None]] | None = None

    async def accept(self, event: SessionEnded, lane: Lane) -> None:
        if self.behave is not None:
            await self.behave()
        self.taken.append((event, lane))


class Api:
    """A listener with its queue, and a client for it."""

    def __init__(self, queue: Queue, counts: RequestCounts, url: str, http: aiohttp.ClientSession) -> None:
        self.queue, self.counts, self.url, self.http = queue, counts, url, http
        self.tokens: Iterable[ApiToken] | None = None
        self.now = NOW

    async def post(
        self, body: object = EVENT, *, query: str = "", bearer: str | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, document and headers."""
        sent = {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
        if bearer is not None:
            sent["Authorization"] = f"Bearer {bearer}"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(f"{self.url}/v1/events{query}", data=data, headers=sent) as answer:
            return answer.status, json.loads(await answer.read()), dict(answer.headers)


@asynccontextmanager
async def answering(**timeouts: float) -> AsyncIterator[Api]:
    """Run an API with small limits of size and number, and short times where a test must reach them."""
    queue = Queue()
    sources = sources_of(lambda: subject.tokens, REGISTRY)
    sources = replace(sources, counts=RequestCounts(sources.tokens, lambda: subject.now))
    limits = ApiLimits(max_event=2000, requests=2, **timeouts)  # type: ignore[arg-type]
    app = build_api_app(EventRequests(queue.accept, sources, limits))
    async with serving(app) as listener, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
        subject = Api(queue, sources.counts, listener.url, http)
        yield subject


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with answering() as subject:
        yield subject


def is_problem(headers: dict[str, str], document: object) -> bool:
    """Return whether it is a problem of notifier, which publishers distinguish from those of other servers."""
    kind = document.get("type") if isinstance(document, dict) else None
    return headers["Content-Type"].startswith("application/problem+json") and kind == "urn:notifier:problem"


async def test_202_with_the_id_means_accepted(api: Api) -> None:
    """The event reaches the queue once, and a generated id is valid from then on."""
    status, document, _ = await api.post()
    assert (status, document) == (202, {"id": "made-up-id"})
    [(event, lane)] = api.queue.taken
    assert lane is Lane.EVENTS
    assert (event.id, event.id_given) == ("made-up-id", True)
    assert (event.iss, event.sub, event.sid) == (ISS, "raw-sub-77", "raw-sid-88")
    assert event.clients == ("shop",)
    assert event.publisher is None


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({"ended_at": 1764147600000, "reason": 5}, "ended_at cannot be read and is left out; it must be an RFC 3339"),
        ({"reason": 5}, "reason cannot be read and is left out; it must be a text"),
        ({"clients": ["shop", "shpo"]}, "the registry has no client shpo; the logout waits for its registration"),
        ({"clients": ["shop "]}, "the registry has no client shop (it ends with a blank; remove it)"),
        ({"clients": ["a", "b", "c", "d"]}, "no clients a, b, c and 1 more"),
        ({"sessionId": "the same", "clients": ["shop"]}, "sessionId is unknown and left out; did you mean sid?"),
        ({"tenant": "t", "clients": ["shop"]}, ""),
        ({"clients": [{"client_id": "none", "backchannel_logout_uri": None}, "shop"]}, ""),
    ],
)  # fmt: skip
async def test_what_was_perhaps_not_meant_so_is_told(more: dict[str, object], note: str, api: Api) -> None:
    """The event is accepted all the same. Additional members of the publisher are permitted."""
    status, document, _ = await api.post({**EVENT, **more})
    assert status == 202
    assert note in document.get("note", "")
    assert bool(note) is ("note" in document)
    assert len(api.queue.taken) == 1


async def test_a_misspelt_member_is_reported() -> None:
    """With its publisher: the event in the queue has it no longer."""
    facts: list[Fact] = []
    queue = Queue()
    sources = replace(sources_of(lambda: TOKENS, REGISTRY), observe=facts.append)
    async with (
        serving(build_api_app(EventRequests(queue.accept, sources))) as listener,
        aiohttp.ClientSession() as http,
    ):
        api = Api(queue, sources.counts, listener.url, http)
        for more in ({}, {"tenant": "t"}, {"sessionid": "s"}):
            assert (await api.post({**EVENT, "id": "e", **more}, bearer="idp-secret"))[0] == 202
    members = (MisspeltMember(written="sessionid", meant="sid"),)
    assert facts == [MembersMisspelt(iss=ISS, event_id="e", publisher="idp", members=members)]


async def test_bulk_lane_is_selected_in_the_query(api: Api) -> None:
    """Mass logouts use the other lane; an unknown lane is an error."""
    assert (await api.post(query="?lane=bulk"))[0] == 202
    assert api.queue.taken[0][1] is Lane.BULK
    status, document, _ = await api.post(query="?lane=retries")
    assert status == 400
    assert document["mistakes"] == [{"path": "lane", "text": "must be one of events, bulk"}]


async def test_unknown_parameter_is_refused(api: Api) -> None:
    """With its name and a suggestion, and nothing is published."""
    status, document, headers = await api.post(query="?lanes=bulk&debug=1")
    assert status == 400
    assert headers["Content-Type"].startswith("application/problem+json")
    assert document["mistakes"] == [
        {"path": "lanes", "text": "there is no such parameter; did you mean lane?"},
        {"path": "debug", "text": "there is no such parameter; there are lane, wait"},
    ]
    assert api.queue.taken == []


async def test_400_names_every_mistake(api: Api) -> None:
    """Invalid entries too: over HTTP an event is accepted only as a whole."""
    status, document, headers = await api.post({"iss": 5, "sub": "a", "clients": ["shop", {"client_id": ""}]})
    assert status == 400
    assert is_problem(headers, document)
    assert document["title"] == "The event is malformed"
    assert {mistake["path"] for mistake in document["mistakes"]} == {"iss", "clients[1].client_id"}
    assert api.queue.taken == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 1900])
async def test_body_that_is_not_an_event_is_400(api: Api, body: bytes) -> None:
    """Empty, truncated, not UTF-8, not an object, too deep."""
    status, document, headers = await api.post(body)
    assert status == 400
    assert is_problem(headers, document)
    assert document["mistakes"]


async def test_unknown_issuer_is_reported_to_the_publisher(api: Api) -> None:
    """Over AMQP it would wait for a new configuration; here the publisher receives the error."""
    status, document, _ = await api.post({**EVENT, "iss": "https://else.example"})
    assert status == 400
    assert document["mistakes"] == [{"path": "iss", "text": "not one of the configured issuers"}]


async def test_type_that_is_not_configured_is_400(api: Api) -> None:
    """`issuers.<iss>.event_types` lists the accepted types."""
    envelope = {"specversion": "1.0", "id": "1", "source": "/idp", "type": "user.created", "data": EVENT}
    status, document, _ = await api.post(envelope, Content_Type="application/cloudevents+json")
    assert status == 400
    assert document["mistakes"][0]["path"] == "type"


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/cloudevents-batch+json",
        "",
    ],
)
async def test_415_for_any_other_kind(api: Api, kind: str) -> None:
    """A form of a web page can send the first three across origins without a preflight: none of them publishes."""
    status, document, headers = await api.post(Content_Type=kind)
    assert status == 415
    assert is_problem(headers, document)
    assert api.queue.taken == []


async def test_404_and_405_are_problems_too(api: Api) -> None:
    """In the same form as other errors; 405 lists the permitted methods."""
    async with api.http.get(f"{api.url}/v1/events") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert is_problem(dict(answer.headers), await answer.json(content_type=None))
    async with api.http.post(f"{api.url}/v1/else") as answer:
        assert answer.status == 404
        assert is_problem(dict(answer.headers), await answer.json(content_type=None))


@pytest.mark.parametrize("bearer", [None, "", "wrong", "idp-secretx", "idp-secret-\u00e9"])
async def test_401_without_a_good_token(api: Api, bearer: str | None) -> None:
    """Missing or invalid: 401 with the scheme, before the body is read."""
    api.tokens = TOKENS
    status, _, headers = await api.post(b"not even JSON", bearer=bearer)
    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Bearer")
    assert api.queue.taken == []


async def test_empty_tokens_file_refuses_all(api: Api) -> None:
    """An empty tokens file differs from none."""
    api.tokens = ()
    assert (await api.post(bearer="anything"))[0] == 401


async def test_publisher_is_the_name_of_the_token(api: Api) -> None:
    """The token's name is the publisher; tokens reload with the file."""
    api.tokens = TOKENS
    assert (await api.post(bearer="other-secret"))[0] == 202
    assert api.queue.taken[0][0].publisher == "other"
    api.tokens = TOKENS[:1]
    assert (await api.post(bearer="other-secret"))[0] == 401


@pytest.mark.parametrize(
    ("bearer", "iss"),
    [("reader-secret", ISS), ("limited-secret", ISS), ("limited-secret", CLOSED), ("other-secret", CLOSED)],
)
async def test_403_without_permission_to_publish(api: Api, bearer: str, iss: str) -> None:
    """Without the scope, for another issuer than the token's, or not among the issuer's publishers."""
    api.tokens = TOKENS
    status, document, headers = await api.post({**EVENT, "iss": iss}, bearer=bearer)
    assert status == 403
    assert is_problem(headers, document)
    assert api.queue.taken == []


async def test_refused_publisher_is_logged_with_the_remedy(api: Api) -> None:
    """Once a minute, without the token and the user."""
    api.tokens = TOKENS
    with capture_logs() as lines:
        for bearer, iss in (("limited", ISS), ("limited", ISS), ("other", CLOSED), ("other", "https://x")):
            await api.post({**EVENT, "iss": iss}, bearer=f"{bearer}-secret")
    answers = [(line["publisher"], line["iss"], line["hint"]) for line in lines if line["event"] == "publisher_refused"]
    assert answers == [
        ("limited", ISS, "if it may, add the issuer to issuers of the token in api.tokens_file"),
        ("other", CLOSED, "if it may, name it in issuers.<iss>.publishers"),
        ("other", "https://x", "iss is not one of the configured issuers"),
    ]
    assert "secret" not in str(lines)
    assert "raw-sub-77" not in str(lines)


EVENTS_ROUTE = "POST /v1/events"


@pytest.mark.parametrize(
    ("bearer", "key", "reason"),
    [
        (None, ("none", EVENTS_ROUTE), "401, The API requires a token in the header Authorization"),
        ("unknown", ("none", EVENTS_ROUTE), "401, The API does not know this token"),
        ("reader-secret", ("reader", EVENTS_ROUTE), "403, The token lacks the scope publish"),
        ("limited-secret", ("limited", EVENTS_ROUTE), "403, The token may not speak for this issuer"),
    ],
)
async def test_refused_publisher_is_a_problem_for_half_an_hour(
    api: Api, bearer: str | None, key: tuple[str, str], reason: str
) -> None:
    """It is counted and named by its token."""
    api.tokens = TOKENS
    for _ in range(2):
        await api.post(bearer=bearer)
        api.now += 300.0
    [trouble] = api.counts.troubles()
    assert (trouble.kind, trouble.subject, trouble.count) == ("publisher_refused", ", ".join(key), 2)
    assert f"{reason};" in trouble.text
    api.now += 1300.0
    assert [trouble.count for trouble in api.counts.troubles()] == [1]
    api.now += 300.0
    assert list(api.counts.troubles()) == []


async def test_users_of_a_provider_have_no_series() -> None:
    """A user may choose the name, and there may be many."""

    async def authenticate(bearer: str) -> ApiToken | None:
        return token(bearer, "read")

    sources = sources_of(lambda: TOKENS, REGISTRY)
    app = build_api_app(EventRequests(Queue().accept, sources), (), authenticate)
    async with serving(app) as listener, aiohttp.ClientSession() as http:
        api = Api(Queue(), sources.counts, listener.url, http)
        known = {name for _, _, name in api.counts.by_labels()}
        for user in ("alice@example.com", "bob@example.com"):
            assert (await api.post(bearer=user))[0] == 403
        assert {name for _, _, name in api.counts.by_labels()} == {*known, "oidc"}
        [trouble] = api.counts.troubles()
        assert "example.com" not in f"{trouble.text} {trouble.subject}"


async def test_few_requests_of_strangers_are_no_problem(api: Api) -> None:
    """Six in half an hour are, at all workers together, as in the alert. One request of a known token is."""
    api.tokens = TOKENS
    for _ in range(3):
        await api.post(bearer=None)
    [few] = api.counts.troubles()
    assert merge_troubles([("a", few)]) == []
    assert [shared.trouble.count for shared in merge_troubles([("a", few), ("b", few)])] == [6]
    await api.post(bearer="reader-secret")
    assert [shared.trouble.subject for shared in merge_troubles(("a", each) for each in api.counts.troubles())] == [
        f"reader, {EVENTS_ROUTE}"
    ]


async def test_events_to_a_missing_path_are_a_problem(api: Api) -> None:
    """A publisher with a wrong URL is refused with 404, and with 405 where the path has another method."""
    api.url += "/missing"
    await api.post()
    api.url = api.url.replace("/missing", "/v1/openapi.json?")
    await api.post()
    [trouble] = api.counts.troubles()
    assert (trouble.subject, trouble.count) == ("none, other", 2)
    assert "405, Method Not Allowed" in trouble.text


async def test_requests_that_a_publisher_repeats_are_no_problem(api: Api) -> None:
    """The queue was unavailable, and the publisher sends the event again. Accepted events are counted."""
    api.tokens = TOKENS
    await api.post(bearer="idp-secret")
    api.queue.behave = _away
    await api.post(bearer="idp-secret")
    assert list(api.counts.troubles()) == []
    counts = api.counts.by_labels()
    assert [counts.get((EVENTS_ROUTE, status, "idp")) for status in STATUS_CLASSES] == [1, None, 0, None, 1]


async def test_stranger_adds_no_series_and_one_log_line_a_minute(api: Api) -> None:
    """Labels are from closed sets: the series of requests without a token exist from the start."""
    api.tokens = TOKENS
    before = set(api.counts.by_labels())
    with capture_logs() as lines:
        for path in ("", "?x=1", "/made-up", "/../up", "/../other?", "/../../x"):
            for bearer in (None, "invented", "in vented"):
                for method in ("POST", "GET", "HEAD", "INVENTED"):
                    headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
                    await (await api.http.request(method, f"{api.url}/v1/events{path}", headers=headers)).read()
    assert set(api.counts.by_labels()) == before
    assert [line["publisher"] for line in lines] == ["none"]
    assert ("POST /v1/events", "4xx", "idp") in before


@pytest.mark.parametrize(("bearer", "vouched"), [("bound-secret", True), ("other-secret", False), (None, False)])
async def test_token_bound_to_the_issuer_authorizes_addresses(api: Api, bearer: str | None, *, vouched: bool) -> None:
    """A token without issuers and the loopback interface do not authorize addresses in events."""
    api.tokens = None if bearer is None else (*TOKENS, token("bound", issuers=frozenset({ISS, CLOSED})))
    event = {**EVENT, "vouched": True}  # an ignored member
    assert (await api.post(event, bearer=bearer))[0] == 202
    assert api.queue.taken[0][0].vouched is vouched


async def test_listed_publisher_may_publish(api: Api) -> None:
    """`publishers` names tokens."""
    api.tokens = TOKENS
    assert (await api.post({**EVENT, "iss": CLOSED}, bearer="idp-secret"))[0] == 202


async def test_web_page_may_not_publish_without_tokens(api: Api) -> None:
    """A page whose name was rebound to loopback has the same origin, but its browser still sends Origin."""
    assert (await api.post(Origin="http://evil.example"))[0] == 403
    assert api.queue.taken == []


async def _away() -> None:
    raise QueueUnavailable("amqp://notifier:s3cret@broker/ is down")


async def _missing() -> None:
    raise TopologyMismatch("queue notifier.events of broker-7 is missing")


async def _never() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("behave", [_away, _missing, _never])
async def test_503_while_the_queue_is_unavailable(behave: Callable[[], Awaitable[None]]) -> None:
    """No connection or no confirm in time: 503 with Retry-After and the id, and without internal details."""
    async with answering(accept_timeout=0.1) as api:
        api.queue.behave = behave
        status, document, headers = await api.post()
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert "made-up-id" in document["title"]
    for inside in ("s3cret", "broker", "notifier.events"):
        assert inside not in json.dumps(document)


async def test_internal_error_shows_no_details(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """500 without a stack trace."""

    async def break_down() -> None:
        raise RuntimeError("internal-detail-9")

    api.queue.behave = break_down
    with caplog.at_level(logging.CRITICAL):
        async with api.http.post(f"{api.url}/v1/events", json=EVENT) as answer:
            assert answer.status == 500
            assert "internal-detail" not in await answer.text()


async def test_slow_body_ends_at_its_time_limit() -> None:
    """The body has a total time limit, at any rate of bytes."""

    async def drip() -> AsyncIterator[bytes]:
        yield b'{"iss": '
        await _never()

    headers = {"Content-Type": "application/json"}
    async with answering(body_timeout=0.1) as api:
        async with api.http.post(f"{api.url}/v1/events", data=drip(), headers=headers) as answer:
            assert answer.status == 408
        assert api.queue.taken == []


async def test_disconnect_does_not_cancel_a_complete_event(api: Api) -> None:
    """A complete event is published, even if its connection is closed."""
    entered, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        entered.set()
        await go.wait()
        done.set()

    api.queue.behave = wait
    waiting = asyncio.create_task(api.post())
    async with asyncio.timeout(60):
        await entered.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        go.set()
        await done.wait()
        assert (await api.post())[0] == 202
    assert len(api.queue.taken) == 2


async def test_no_token_and_no_subject_in_logs_or_refusals(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the bearer token nor `sub` nor `sid` is logged or returned."""
    api.tokens = TOKENS
    answers = []
    with caplog.at_level(logging.DEBUG):
        for bearer, event in (
            ("idp-secret", EVENT),
            ("wrong-secret-9", EVENT),
            ("reader-secret", EVENT),
            ("idp-secret", {**EVENT, "iss": "https://else.example"}),
            ("idp-secret", {**EVENT, "clients": 5}),
        ):
            answers.append(await api.post(event, bearer=bearer))
        api.queue.behave = _away
        answers.append(await api.post(bearer="idp-secret"))
    assert [answer[0] for answer in answers] == [202, 401, 403, 400, 400, 503]
    for secret in ("idp-secret", "wrong-secret-9", "reader-secret", "raw-sub-77", "raw-sid-88"):
        assert secret not in caplog.text
        assert secret not in str(answers)
