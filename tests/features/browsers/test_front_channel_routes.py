"""The page and its report on a real socket: whose contexts are served, and what is counted."""

import asyncio
import json
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest
from cryptography.fernet import Fernet, MultiFernet

from notifier.features.browsers.front_channel_context import MAX_CONTEXT_CHARACTERS, open_context, seal_context
from notifier.features.browsers.front_channel_counts import BrowserReach, FrontChannelCounts, PageEnd
from notifier.features.browsers.front_channel_routes import FrontChannelRoutes, PageDependencies
from notifier.features.browsers.supplied_addresses import SuppliedAddresses
from notifier.features.browsers.web_keys import PageKeys
from notifier.features.browsers.web_settings import WebIssuerSettings
from notifier.model.client import Client, EgressPolicy, FrontChannelClient, Route
from notifier.model.front_channel import AddressRefusal, FrontChannelContext
from notifier.model.registry import Issuer, Registry
from notifier.network.listeners.web_app import web_app
from tests.publishing.serving import NOW, serving

ISS, OTHER = "https://login.example.com", "https://other.example.com"
THIRD = "https://third.example.com"
KEYS = MultiFernet([Fernet(Fernet.generate_key())])
SETTINGS = WebIssuerSettings(url=f"{ISS}/connect/notify")
DONE = {"how": "done", "ms": 12, "clients": ["answered", "failed"]}


def client(client_id: str, *, required: bool = False) -> Client:
    front = FrontChannelClient(
        frontchannel_logout_uri=f"https://{client_id}.example.net/out", frontchannel_logout_session_required=required
    )
    return Client(iss=ISS, client_id=client_id, backchannel_logout_uri=None, front_channel=front)


CLIENTS = {each.client_id: each for each in (client("billing"), client("shop"), client("strict", required=True))}
REGISTRY = Registry(issuers={ISS: Issuer(iss=ISS), OTHER: Issuer(iss=OTHER)}, clients={ISS: MappingProxyType(CLIENTS)})


def context(*clients: str, sid: str | None = "5F2A", iss: str = ISS) -> FrontChannelContext:
    return FrontChannelContext(iss=iss, sid=sid, clients=tuple((each, None) for each in clients))


class Counted(FrontChannelCounts):
    """Counts in words."""

    def __init__(self) -> None:
        super().__init__(lambda iss, client_id: (iss, client_id))
        self.counts: Counter[str] = Counter()

    def on_page_shown(self, iss: str, client_ids: Iterable[str]) -> None:
        self.counts["shown " + " ".join(client_ids)] += 1

    def on_page_refused(self) -> None:
        self.counts["refused"] += 1

    def on_clients_omitted(self, reason: AddressRefusal, client_count: int) -> None:
        self.counts[f"left out: {reason}"] += client_count

    def on_report(self, end: PageEnd, iss: str, results: Iterable[tuple[str, BrowserReach]]) -> None:
        self.counts[f"{end}: " + " ".join(f"{client_id}={reach}" for client_id, reach in results)] += 1

    def on_repeated_report(self) -> None:
        self.counts["repeated"] += 1

    def on_refused_report(self) -> None:
        self.counts["report refused"] += 1


class Face:
    """The listener, asked."""

    def __init__(self, url: str, session: aiohttp.ClientSession, counted: Counted) -> None:
        self.url, self.session, self.counts = url, session, counted.counts

    async def get(self, sealed: str) -> tuple[int, str, str]:
        """Status, policy and text of a page."""
        async with self.session.get(f"{self.url}/front-channel/{sealed}") as answer:
            assert "Set-Cookie" not in answer.headers
            return answer.status, answer.headers["Content-Security-Policy"], await answer.text()

    async def report(self, sealed: str, body: Any, **options: Any) -> int:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(f"{self.url}/front-channel/{sealed}", data=data, **options) as answer:
            return answer.status


def access(
    counted: Counted, keys: MultiFernet = KEYS, own: Mapping[str, MultiFernet] = {}, registry: Registry = REGISTRY
) -> PageDependencies:
    page_keys = PageKeys(shared=keys, own=own, single_issuer=False)
    return PageDependencies(
        open_context=lambda text: page_keys.open(text, NOW),
        seal_context=lambda made: seal_context(made, page_keys.keys_of(made.iss), NOW),
        settings_of={ISS: SETTINGS, THIRD: SETTINGS}.get,
        registry=lambda: registry,
        supplied=SuppliedAddresses(
            counted, lambda: registry, lambda _: {"login.example.com"}, page_keys.has_exclusive_keys
        ),
        counts=counted,
    )


@asynccontextmanager
async def face(
    own: Mapping[str, MultiFernet] = {}, registry: Registry = REGISTRY, **options: int
) -> AsyncIterator[Face]:
    counted = Counted()
    routes = FrontChannelRoutes(access(counted, own=own, registry=registry), **options).routes()
    async with serving(web_app(routes)) as listener, aiohttp.ClientSession() as session:
        yield Face(listener.url, session, counted)


async def test_a_page_calls_the_clients_of_its_context() -> None:
    """By the current registry, as often as it is opened; only the configuration sets the frames' origins."""
    sealed = seal_context(context("billing", "gone", "shop"), KEYS, NOW)
    async with face() as asked:
        for _ in range(2):
            status, policy, text = await asked.get(sealed)
            assert (status, policy.endswith(f"frame-ancestors {ISS}")) == (200, True)
            assert "https://billing.example.net/out?iss=https%3A%2F%2Flogin.example.com&amp;sid=5F2A" in text
            assert f'"report":"/connect/notify/front-channel/{sealed}"' in text
            assert "gone" not in text
        assert asked.counts == {"shown billing shop": 2}


@pytest.mark.parametrize(
    "sealed",
    [
        "%C3%A9",
        seal_context(context("billing"), MultiFernet([Fernet(Fernet.generate_key())]), NOW),
        seal_context(context("billing", iss=OTHER), KEYS, NOW),
        seal_context(context("billing", iss="https://stranger.example.com"), KEYS, NOW),
    ],
    ids=["not ASCII", "forged", "an issuer without pages", "a stranger"],
)
async def test_a_foreign_context_shows_nothing(sealed: str) -> None:
    """400, and nobody may frame it; a report of it counts nowhere."""
    async with face() as asked:
        status, policy, text = await asked.get(sealed)
        assert (status, policy.endswith("frame-ancestors 'none'")) == (400, True)
        assert "script" not in text
        assert await asked.report(sealed, DONE) in (400, 403)
        assert asked.counts == {"refused": 1, "report refused": 1}


async def test_a_page_without_clients_counts_nothing() -> None:
    """Whether pages are served, by an identity server that is about to show one: it is answered, and counts nowhere."""
    async with face() as asked:
        status, policy, text = await asked.get(seal_context(context(), KEYS, NOW))
        assert (status, policy.endswith(f"frame-ancestors {ISS}")) == (200, True)
        assert '"report":null' in text
        assert await asked.report(seal_context(context(), KEYS, NOW), {"how": "done", "clients": []}) == 204
        assert asked.counts == {}
        assert (await asked.get(seal_context(context(iss=OTHER), KEYS, NOW)))[0] == 400  # as for any page


async def test_the_first_report_of_a_context_counts() -> None:
    """Copies are accepted silently, whatever their content."""
    sealed = seal_context(context("billing", "shop"), KEYS, NOW)
    async with face() as asked:
        assert [await asked.report(sealed, body) for body in (DONE, DONE, b"{")] == [204, 204, 204]
        assert asked.counts == {"done: billing=reached shop=unreachable": 1, "repeated": 2}


async def test_two_reports_at_once_count_once() -> None:
    """Both are read before either is counted."""
    sealed = seal_context(context("billing", "shop"), KEYS, NOW)
    body = json.dumps(DONE).encode()

    async def slowly(go: asyncio.Event) -> AsyncIterator[bytes]:
        yield body[:5]
        await go.wait()
        yield body[5:]

    async with face() as asked:
        go = asyncio.Event()
        url = f"{asked.url}/front-channel/{sealed}"
        both = [asyncio.create_task(asked.session.post(url, data=slowly(go))) for _ in range(2)]
        assert await asked.report(sealed, b"{") == 400
        go.set()
        assert [answer.status for answer in await asyncio.gather(*both)] == [204, 204]
        assert asked.counts == {"done: billing=reached shop=unreachable": 1, "repeated": 1, "report refused": 1}


async def test_a_client_that_requires_a_sid_is_not_called_without_one() -> None:
    """It is named as such, and counts as not reached."""
    sealed = seal_context(context("billing", "strict", sid=None), KEYS, NOW)
    async with face() as asked:
        _, _, text = await asked.get(sealed)
        assert '"unasked":[{"id":"strict"}]' in text
        assert "strict.example.net" not in text
        assert await asked.report(sealed, {"how": "left", "clients": ["answered"]}) == 204
        assert asked.counts["left: billing=reached strict=unreachable"] == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), ({**DONE, "clients": []}, 400), (b" " * 9000, 413), (b" " * 70_000, 413)],
    ids=["no JSON", "too few", "large", "very large"],
)
async def test_a_bad_report_is_refused(body: object, status: int) -> None:
    """And a good one after it counts."""
    sealed = seal_context(context("billing", "shop"), KEYS, NOW)
    async with face() as asked:
        assert await asked.report(sealed, body) == status
        assert await asked.report(sealed, DONE) == 204
        assert asked.counts == {"report refused": 1, "done: billing=reached shop=unreachable": 1}


async def test_other_methods_are_refused() -> None:
    """HEAD too: a page that nobody sees asks nobody."""
    async with face() as asked:
        for method in ("HEAD", "PUT", "OPTIONS"):
            async with asked.session.request(method, f"{asked.url}/front-channel/x") as answer:
                assert answer.status == 405
        assert asked.counts == {}


async def test_a_page_without_an_address_gets_a_report_address() -> None:
    """Made for a request of an upstream provider: it reports to the address that it would have; none if too long."""
    counted = Counted()
    routes = FrontChannelRoutes(access(counted))
    text = routes.page_of(context("billing")).text or ""
    report = json.loads(text.split('id="plan">')[1].split("</script>")[0])["report"]
    opened = open_context(report.removeprefix("/connect/notify/front-channel/"), KEYS, NOW)
    assert opened is not None
    assert opened.context == context("billing")
    many = context(*(Fernet.generate_key().decode() for _ in range(300)), "billing")
    assert '"report":null' in (routes.page_of(many).text or "")
    assert routes.page_of(context("billing", iss=OTHER)).status == 400
    assert counted.counts == {"shown billing": 2, "refused": 1}


async def test_remembered_reports_are_bounded() -> None:
    """The oldest is forgotten first: it has expired long since."""
    sealed = [seal_context(context("billing", sid=str(nth)), KEYS, NOW) for nth in range(3)]
    report = {"how": "done", "clients": ["answered"]}
    async with face(max_reported=2) as asked:
        for each in (*sealed, sealed[2], sealed[0]):
            assert await asked.report(each, report) == 204
        assert asked.counts == {"done: billing=reached": 4, "repeated": 1}


OWN = {ISS: MultiFernet([Fernet(Fernet.generate_key())]), THIRD: MultiFernet([Fernet(Fernet.generate_key())])}
PLAIN = (
    Client(iss=ISS, client_id="plain", backchannel_logout_uri=None),
    Client(iss=ISS, client_id="off", backchannel_logout_uri=None, off_page=True),
)
EVERYBODY = Registry(
    issuers={iss: Issuer(iss=iss) for iss in (ISS, THIRD)},
    clients={ISS: MappingProxyType({**CLIENTS, **{each.client_id: each for each in PLAIN}})},
    aliases={ISS: {"shop-alias": "shop"}},
    unregistered=Client(iss="", client_id="", backchannel_logout_uri=None, registered=False),
)


def bringing(iss: str = ISS, **uris: str) -> FrontChannelContext:
    """A context whose clients come with these addresses."""
    brought = {name: FrontChannelClient(frontchannel_logout_uri=uri) for name, uri in uris.items()}
    return FrontChannelContext(iss=iss, sid="5F2A", clients=tuple((name, None) for name in uris), supplied=brought)


async def test_an_exclusive_key_supplies_addresses_of_unregistered_clients() -> None:
    """Its page is like any: it asks, and its report counts. What the registry has of a client wins."""
    supplied = bringing(
        new="https://new.example.net/out?a=1", shop="https://evil.example.net/", off="https://evil.example.net/"
    )
    evil = FrontChannelClient(frontchannel_logout_uri="https://evil.example.net/")
    alias = replace(context("shop-alias"), supplied={"shop-alias": evil})
    async with face(OWN, EVERYBODY) as asked:
        sealed = seal_context(supplied, OWN[ISS], NOW)
        status, _, text = await asked.get(sealed)
        assert status == 200
        assert "https://new.example.net/out?a=1&amp;iss=https%3A%2F%2Flogin.example.com&amp;sid=5F2A" in text
        assert "https://shop.example.net/out" in text
        assert "evil" not in text + (await asked.get(seal_context(alias, OWN[ISS], NOW)))[2]
        assert await asked.report(sealed, DONE) == 204
        assert asked.counts == {"shown new shop": 1, "shown shop": 1, "done: new=reached shop=unreachable": 1}


async def test_a_registered_client_without_an_address_is_counted() -> None:
    """It is not called, wherever its address comes from; the counter shows it to the operator."""
    async with face(OWN, EVERYBODY) as asked:
        for key in (OWN[ISS], KEYS):
            assert (
                "evil" not in (await asked.get(seal_context(bringing(plain="https://evil.example.net/"), key, NOW)))[2]
            )
        assert asked.counts == {"shown ": 2, "left out: registered": 2}


async def test_a_key_of_several_issuers_supplies_no_address() -> None:
    """It may seal pages of each issuer with registered addresses. Each showing counts the clients left out."""
    async with face(OWN, EVERYBODY) as asked:
        sealed = seal_context(bringing(new="https://new.example.net/out", shop="https://x.example.net/"), KEYS, NOW)
        status, _, text = await asked.get(sealed)
        assert (status, "new.example.net" in text, "shop.example.net" in text) == (200, False, True)
        assert await asked.report(sealed, {"how": "done", "clients": ["answered"]}) == 204
        assert asked.counts == {"left out: shared_key": 1, "shown shop": 1, "done: shop=reached": 1}


async def test_an_exclusive_key_opens_no_page_of_another_issuer() -> None:
    """Nor is a report of one taken."""
    async with face(OWN, EVERYBODY) as asked:
        sealed = seal_context(bringing(iss=ISS, new="https://new.example.net/out"), OWN[THIRD], NOW)
        assert (await asked.get(sealed))[0] == 400
        assert await asked.report(sealed, DONE) == 403
        assert (await asked.get(seal_context(bringing(iss=THIRD, new="https://n.example.net/"), OWN[THIRD], NOW)))[
            0
        ] == 200
        assert asked.counts == {"refused": 1, "report refused": 1, "shown new": 1}


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("javascript:alert(1)", "address"),
        ("http://new.example.net/out", "address"),
        ("https://10.0.0.1/out", "address"),
        ("https://user@new.example.net/out", "address"),
        ("https://new.example.net/out#x", "address"),
        (f"https://new.example.net/{'x' * 5000}", "address"),
        ("https://login.example.com/account/delete", "own_host"),
        ("https://LOGIN.example.com.:8443/", "own_host"),
    ],
)
async def test_a_forbidden_address_leaves_its_client_out(uri: str, reason: str) -> None:
    """Also with the issuer's own key. The other clients are asked."""
    async with face(OWN, EVERYBODY) as asked:
        _, policy, text = await asked.get(
            seal_context(bringing(new=uri, good="https://good.example.net/"), OWN[ISS], NOW)
        )
        assert ("good.example.net" in text, '"id":"new"' in text, "http:" in policy) == (True, False, False)
        assert asked.counts == {f"left out: {reason}": 1, "shown good": 1}


async def test_egress_applies_to_pages_as_to_workers() -> None:
    """Plain http, and a private address."""
    egress = EgressPolicy(allow_http=True, allow=(ip_network("10.0.0.0/8"),))
    template = Client(iss="", client_id="", backchannel_logout_uri=None, registered=False, route=Route(egress=egress))
    async with face(OWN, replace(EVERYBODY, unregistered=template)) as asked:
        _, policy, text = await asked.get(seal_context(bringing(new="http://10.1.2.3/out"), OWN[ISS], NOW))
        assert ("http://10.1.2.3/out" in text, "frame-src https: http:" in policy) == (True, True)


async def test_a_short_context_makes_a_short_page() -> None:
    """A client counts once, however often it is named: else one long address could be written ten thousand times."""
    entry = ["new", None, f"https://new.example.net/{'x' * 3000}", False]
    plain = json.dumps([ISS, None, entry, *(["new"] * 30_000)]).encode()
    sealed = OWN[ISS].encrypt_at_time(zlib.compress(plain, 9), int(NOW)).decode().rstrip("=")
    assert len(sealed) <= MAX_CONTEXT_CHARACTERS
    async with face(OWN, EVERYBODY) as asked:
        status, _, text = await asked.get(sealed)
        assert (status, len(text) < 30_000, asked.counts) == (200, True, {"shown new": 1})
