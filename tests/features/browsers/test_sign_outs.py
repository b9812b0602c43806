"""`POST /v1/sign-outs` on a real socket: the event is published as ever, and the answer has the page's URL."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest
from cryptography.fernet import Fernet, MultiFernet

from notifier.features.browsers.front_channel_context import open_context
from notifier.features.browsers.front_channel_counts import FrontChannelCounts
from notifier.features.browsers.sign_out_routes import SignOutRoutes
from notifier.features.browsers.supplied_addresses import SuppliedAddresses
from notifier.features.browsers.web_keys import PageKeys
from notifier.features.browsers.web_settings import WebIssuerSettings
from notifier.model.client import Client, FrontChannelClient, FrontChannelWay
from notifier.model.errors import QueueUnavailable
from notifier.model.front_channel import FrontChannelContext
from notifier.model.message import Lane
from notifier.model.registry import Issuer, Registry
from notifier.model.session_ended import SessionEnded
from notifier.publishing.event_requests import EventRequests, build_api_app
from tests.network.listeners.described import described
from tests.publishing.serving import ISS, NOW, serving, sources_of, token

KEYS = MultiFernet([Fernet(Fernet.generate_key())])
PAGE_KEYS = PageKeys(shared=KEYS, own={}, single_issuer=True)
ISSUER = WebIssuerSettings(url="https://login.example.com/connect/notify")
EVENT = {"iss": ISS, "sub": "248289761001", "sid": "5F2A", "clients": ["billing", "api", "shop-alias", "worker"]}
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
URL = f"{ISSUER.url}/front-channel/"


def _client(client_id: str, way: FrontChannelWay | None) -> Client:
    uri = f"https://{client_id}.example.net/signout"
    answer = None if way is None else FrontChannelClient(frontchannel_logout_uri=uri, way=way)
    return Client(iss=ISS, client_id=client_id, backchannel_logout_uri=uri, front_channel=answer)


BROWSER = FrontChannelWay.BROWSER
CLIENTS = (
    *(_client(name, BROWSER) for name in ("billing", "shop")),
    _client("api", None),
    _client("worker", FrontChannelWay.SERVER),
    *(_client(hashlib.sha256(bytes([number // 256, number % 256])).hexdigest()[:32], BROWSER) for number in range(400)),
)
MANY = [client.client_id for client in CLIENTS[4:]]
REGISTRY = Registry(
    issuers={ISS: Issuer(iss=ISS)},
    clients={ISS: MappingProxyType({client.client_id: client for client in CLIENTS})},
    aliases={ISS: {"shop-alias": "shop"}},
)


class _Queue:
    def __init__(self, *, away: bool = False) -> None:
        self.taken: list[tuple[SessionEnded, Lane]] = []
        self._away = away

    async def accept(self, event: SessionEnded, lane: Lane) -> None:
        if self._away:
            raise QueueUnavailable("away")
        self.taken.append((event, lane))


def _sign_outs(
    requests: EventRequests, keys: PageKeys | None, issuers: Mapping[str, WebIssuerSettings], registry: Registry
) -> SignOutRoutes:
    counts = FrontChannelCounts(lambda iss, client_id: (iss, client_id))
    brought = SuppliedAddresses(
        counts,
        lambda: registry,
        lambda _: {"login.example.com"},
        lambda iss: keys is None or keys.has_exclusive_keys(iss),
    )
    return SignOutRoutes(requests, lambda: keys, issuers.get, brought)


async def _post(
    event: Any = EVENT,
    queue: _Queue | None = None,
    keys: PageKeys | None = PAGE_KEYS,
    issuers: Mapping[str, WebIssuerSettings] = {ISS: ISSUER},
    query: str = "",
    headers: Mapping[str, str] = NO_HEADERS,
    registry: Registry = REGISTRY,
) -> tuple[int, Any]:
    tokens = (token("idp"), token("reader", "read"))
    requests = EventRequests((queue or _Queue()).accept, sources_of(lambda: tokens, registry))
    app = build_api_app(requests, _sign_outs(requests, keys, issuers, registry).routes())
    sent = {"Authorization": "Bearer idp-secret", **headers}
    async with (
        serving(app) as listener,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http,
        http.post(f"{listener.url}/v1/sign-outs{query}", json=event, headers=sent) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


async def test_the_answer_has_the_page_of_browser_clients() -> None:
    """By their own names, in the event's order; a key opens it for ten minutes. The event is published."""
    queue = _Queue()
    status, answer = await _post(queue=queue, query="?lane=bulk")
    assert (status, answer["id"]) == (202, "made-up-id")
    page = answer["front_channel"]
    assert (page["clients"], page["until"]) == (2, "1970-01-01T00:26:40Z")
    opened = open_context(page["url"].removeprefix(URL), KEYS, NOW)
    assert opened is not None
    assert opened.context == FrontChannelContext(iss=ISS, sid="5F2A", clients=(("billing", None), ("shop", None)))
    assert open_context(page["url"].removeprefix(URL), KEYS, NOW + 601) is None
    [(event, lane)] = queue.taken
    assert (event.id, event.clients, lane) == ("made-up-id", tuple(EVENT["clients"]), Lane.BULK)


@pytest.mark.parametrize("unknown", [[], ["unknown"]])
async def test_without_browser_clients_there_is_no_page(unknown: list[str]) -> None:
    """The answer names an unknown client: it might need the browser."""
    queue = _Queue()
    status, answer = await _post({**EVENT, "clients": ["api", "worker", *unknown]}, queue=queue)
    note = answer.pop("note", "")
    assert (status, answer) == (202, {"id": "made-up-id", "front_channel": None})
    assert ("no client unknown" in note) is bool(unknown)
    assert len(queue.taken) == 1


@pytest.mark.parametrize(
    ("keys", "missing"), [(None, "no web.issuers"), (PAGE_KEYS, "no entry for this issuer under web.issuers")]
)
async def test_an_event_without_pages_is_published_with_a_note(keys: PageKeys | None, missing: str) -> None:
    """So that nobody takes it for an event whose clients need no browser."""
    queue = _Queue()
    status, answer = await _post(queue=queue, keys=keys, issuers={})
    note = f"the browser should ask 2 of its clients, but notifier's configuration has {missing}"
    assert (status, answer) == (202, {"id": "made-up-id", "front_channel": None, "note": note})
    assert len(queue.taken) == 1


@pytest.mark.parametrize("clients", ["*", MANY])
async def test_too_many_clients_for_one_page_are_refused_unpublished(clients: Any) -> None:
    """The answer has the remedy."""
    queue = _Queue()
    status, problem = await _post({**EVENT, "clients": clients}, queue=queue)
    assert (status, problem["title"]) == (400, "One page cannot ask so many clients")
    [mistake] = problem["mistakes"]
    assert mistake["path"] == "clients"
    assert mistake["text"].startswith(f"has {len(MANY) + (2 if clients == '*' else 0)} clients that the browser must")
    assert "publish the event by POST /v1/events" in mistake["text"]
    assert queue.taken == []
    assert (await _post({**EVENT, "clients": MANY[:200]}, queue=queue))[0] == 202


async def test_with_the_queue_unavailable_there_is_no_page() -> None:
    """503, and the id to send again with: a page whose event is lost would look like a sign-out."""
    status, problem = await _post(queue=_Queue(away=True))
    assert (status, "front_channel" in problem) == (503, False)
    assert "send the event again with the id made-up-id" in problem["title"]


async def test_the_checks_are_those_of_events() -> None:
    """Token and scope, content type, body, lane, issuer, and CloudEvents by their headers."""
    assert (await _post(headers={"Authorization": "Bearer reader-secret"}))[0] == 403
    assert (await _post(headers={"Authorization": "Bearer wrong"}))[0] == 401
    assert (await _post(headers={"Content-Type": "text/plain"}))[0] == 415
    assert (await _post({**EVENT, "iss": "https://stranger.example.com"}))[0] == 400
    assert (await _post({}))[0] == 400
    assert (await _post(query="?lane=retries"))[0] == 400
    ce = {"ce-specversion": "1.0", "ce-id": "ce-7", "ce-source": "/idp", "ce-type": "session.ended"}
    status, answer = await _post(headers=ce)
    assert (status, answer["id"], answer["front_channel"]["clients"]) == (202, "ce-7", 2)


@pytest.mark.full
def test_answers_of_sign_outs_match_their_description() -> None:
    """Every answer is as it is described."""
    requests = EventRequests(_Queue().accept, sources_of(lambda: (token("idp"),), REGISTRY))
    operations = described(
        build_api_app(requests, _sign_outs(requests, PAGE_KEYS, {ISS: ISSUER}, REGISTRY).routes()), examples=25
    )
    assert "POST /v1/sign-outs" in operations


NAMED = replace(
    REGISTRY,
    issuers={ISS: Issuer(iss=ISS, publishers=frozenset({"idp"}))},
    unregistered=Client(iss="", client_id="", backchannel_logout_uri=None, registered=False),
)
NEW = {"client_id": "new", "frontchannel_logout_uri": "https://new.example.net/out?a=1"}
BRINGING = {
    **EVENT,
    "clients": [NEW, {"client_id": "shop-alias", "frontchannel_logout_uri": "https://evil.example.net/"}],
}


async def test_an_event_supplies_a_clients_address() -> None:
    """The context has it, too, so that any worker asks there. What is registered wins, under an alias as well."""
    entry = {**NEW, "sid": "own", "frontchannel_logout_session_required": True, "backchannel_logout_uri": None}
    status, answer = await _post({**BRINGING, "clients": [entry, BRINGING["clients"][1]]}, registry=NAMED)
    assert (status, answer["front_channel"]["clients"], "note" in answer) == (202, 2, False)
    opened = open_context(answer["front_channel"]["url"].removeprefix(URL), KEYS, NOW)
    assert opened is not None
    assert opened.context.clients == (("new", "own"), ("shop", None))
    front = FrontChannelClient(
        frontchannel_logout_uri=NEW["frontchannel_logout_uri"], frontchannel_logout_session_required=True
    )
    assert opened.context.supplied == {"new": front}


@pytest.mark.parametrize(
    ("registry", "one", "entry", "phrase"),
    [
        (replace(NAMED, issuers={ISS: Issuer(iss=ISS)}), True, NEW, "name its user or API token under publishers"),
        (replace(NAMED, inline="deny"), True, NEW, "registry.inline is deny"),
        (NAMED, False, NEW, "use web.issuers.<iss>.keys_file"),
        (NAMED, True, {**NEW, "frontchannel_logout_uri": "http://new.example.net/"}, "it is http; to allow it"),
        (NAMED, True, {**NEW, "frontchannel_logout_uri": "https://127.1/"}, "loopback"),
        (NAMED, True, {**NEW, "frontchannel_logout_uri": "https://login.example.com:8443/x"}, "the issuer's own host"),
    ],
    ids=["a stranger", "denied", "a shared key", "http", "loopback", "own host"],
)
async def test_a_client_with_an_ignored_address_is_named(
    registry: Registry, one: bool, entry: Mapping[str, str], phrase: str
) -> None:
    """The event is published all the same, and the page asks the others. Alone it makes no page."""
    queue = _Queue()
    keys = replace(PAGE_KEYS, single_issuer=one)
    status, answer = await _post({**EVENT, "clients": [entry, "shop"]}, queue, keys, registry=registry)
    assert (status, answer["front_channel"]["clients"]) == (202, 1)
    assert answer["note"].startswith("the page leaves out 1 client whose address does not count (new): ")
    assert phrase in answer["note"]
    status, answer = await _post({**EVENT, "clients": [entry]}, queue, keys, registry=registry)
    assert (status, answer["front_channel"], phrase in answer["note"]) == (202, None, True)
    assert len(queue.taken) == 2


async def test_each_reason_is_named_with_its_clients_and_remedy() -> None:
    """Each reason has its own remedy."""
    entries = [
        {**NEW, "frontchannel_logout_uri": "https://login.example.com/x"},
        {"client_id": "plain", "frontchannel_logout_uri": "http://plain.example.net/"},
        {"client_id": "bare", "frontchannel_logout_uri": "http://bare.example.net/"},
    ]
    _, answer = await _post({**EVENT, "clients": entries}, registry=NAMED)
    head, own_host, address = answer["note"].split(" (", 2)
    assert head == "the page leaves out 3 clients whose address does not count"
    assert own_host.startswith("new): it is on login.example.com, the issuer's own host; browsers would send")
    assert address.startswith("plain, bare): it is http; to allow it, set egress.allow_http; a page cannot ask there")


async def test_an_exclusive_key_seals_the_pages_of_its_issuer() -> None:
    """So the addresses in them count when they are shown, though there are other issuers."""
    own = MultiFernet([Fernet(Fernet.generate_key())])
    keys = PageKeys(shared=KEYS, own={ISS: own}, single_issuer=False)
    _, answer = await _post(BRINGING, keys=keys, registry=NAMED)
    sealed = answer["front_channel"]["url"].removeprefix(URL)
    assert open_context(sealed, KEYS, NOW) is None
    opened = keys.open(sealed, NOW)
    assert opened is not None
    assert (opened.exclusive_key, list(opened.context.supplied)) == (True, ["new"])


async def test_as_many_addresses_as_fit_into_a_url() -> None:
    """About 90 random addresses fit."""
    entries = [
        {"client_id": name, "frontchannel_logout_uri": f"https://{name[:12]}.example.net/signout/{name[12:]}"}
        for name in (hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(200))
    ]
    queue = _Queue()
    status, _ = await _post({**EVENT, "clients": entries}, queue, registry=NAMED)
    assert (status, queue.taken) == (400, [])
    status, answer = await _post({**EVENT, "clients": entries[:50]}, queue, registry=NAMED)
    assert (status, answer["front_channel"]["clients"]) == (202, 50)
