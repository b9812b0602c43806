"""The page and its report on a real socket: whose contexts are served, and what is counted."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest
from cryptography.fernet import Fernet, MultiFernet

from notifier.features.browsers.front_channel_context import LIFETIME, open_sealed, seal
from notifier.features.browsers.front_channel_counts import FrontChannelCounts
from notifier.features.browsers.front_channel_page import PageRules
from notifier.features.browsers.front_channel_report import BrowserReach, PageEnd
from notifier.features.browsers.front_channel_routes import FrontChannelRoutes, PageAccess
from notifier.model.client import Client, FrontChannelClient
from notifier.model.front_channel import FrontChannelContext
from notifier.model.registry import Issuer, Registry
from notifier.network.listeners.web_app import web_app
from tests.publishing.serving import NOW, serving

ISS, OTHER = "https://login.example.com", "https://other.example.com"
KEYS = MultiFernet([Fernet(Fernet.generate_key())])
RULES = PageRules(path="/connect/notify", origins=(ISS,))
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

    def page_shown(self, iss: str, client_ids: Iterable[str]) -> None:
        self.counts["shown " + " ".join(client_ids)] += 1

    def page_refused(self) -> None:
        self.counts["refused"] += 1

    def reported(self, end: PageEnd, iss: str, reached: Iterable[tuple[str, BrowserReach]]) -> None:
        self.counts[f"{end}: " + " ".join(f"{client_id}={reach}" for client_id, reach in reached)] += 1

    def report_repeated(self) -> None:
        self.counts["repeated"] += 1

    def report_refused(self) -> None:
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


def access(counted: Counted, keys: MultiFernet = KEYS) -> PageAccess:
    return PageAccess(
        opened=lambda text: open_sealed(text, keys, NOW),
        sealed=lambda made: seal(made, keys, NOW),
        rules={ISS: RULES}.get,
        registry=lambda: REGISTRY,
        counts=counted,
    )


@asynccontextmanager
async def face(**options: int) -> AsyncIterator[Face]:
    counted = Counted()
    routes = FrontChannelRoutes(access(counted), **options).routes()
    async with serving(web_app(routes)) as listener, aiohttp.ClientSession() as session:
        yield Face(listener.url, session, counted)


async def test_a_page_asks_the_clients_of_its_context() -> None:
    """By the registry of now, as often as it is opened; the frames' origins are told by configuration alone."""
    sealed = seal(context("billing", "gone", "shop"), KEYS, NOW)
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
        "x",
        "%C3%A9",
        seal(context("billing"), MultiFernet([Fernet(Fernet.generate_key())]), NOW),
        seal(context("billing"), KEYS, NOW - LIFETIME - 1),
        seal(context("billing"), KEYS, NOW)[:-4] + "AAAA",
        seal(context("billing", iss=OTHER), KEYS, NOW),
        seal(context("billing", iss="https://stranger.example.com"), KEYS, NOW),
    ],
    ids=["nonsense", "not ASCII", "forged", "expired", "changed", "an issuer without pages", "a stranger"],
)
async def test_a_foreign_context_shows_nothing(sealed: str) -> None:
    """400, and nobody may frame it; a report of it counts nowhere."""
    async with face() as asked:
        status, policy, text = await asked.get(sealed)
        assert (status, policy.endswith("frame-ancestors 'none'")) == (400, True)
        assert "script" not in text
        assert await asked.report(sealed, DONE) in (400, 403)
        assert asked.counts == {"refused": 1, "report refused": 1}


async def test_a_page_of_no_client_is_a_question() -> None:
    """Whether pages are served, by an identity server that is about to show one: it is answered, and counts nowhere."""
    async with face() as asked:
        status, policy, text = await asked.get(seal(context(), KEYS, NOW))
        assert (status, policy.endswith(f"frame-ancestors {ISS}")) == (200, True)
        assert '"report":null' in text
        assert asked.counts == {}
        assert (await asked.get(seal(context(iss=OTHER), KEYS, NOW)))[0] == 400  # as for any page


async def test_the_first_report_of_a_context_counts() -> None:
    """Copies are taken without a word, whatever they say."""
    sealed = seal(context("billing", "shop"), KEYS, NOW)
    async with face() as asked:
        assert [await asked.report(sealed, body) for body in (DONE, DONE, b"{")] == [204, 204, 204]
        assert asked.counts == {"done: billing=reached shop=unreachable": 1, "repeated": 2}


async def test_two_reports_at_once_count_once() -> None:
    """Both are read before either is counted."""
    sealed = seal(context("billing", "shop"), KEYS, NOW)
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


async def test_a_client_that_must_have_a_sid_is_not_asked_without_one() -> None:
    """It is named as such, and counts as not reached."""
    sealed = seal(context("billing", "strict", sid=None), KEYS, NOW)
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
    sealed = seal(context("billing", "shop"), KEYS, NOW)
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


async def test_a_page_without_an_address_of_its_own() -> None:
    """Made for a request of an upstream provider: it reports to the address that it would have; none if too long."""
    counted = Counted()
    routes = FrontChannelRoutes(access(counted))
    text = routes.page_of(context("billing")).text or ""
    report = json.loads(text.split('id="plan">')[1].split("</script>")[0])["report"]
    opened = open_sealed(report.removeprefix("/connect/notify/front-channel/"), KEYS, NOW)
    assert opened is not None
    assert opened.context == context("billing")
    many = context(*(Fernet.generate_key().decode() for _ in range(300)), "billing")
    assert '"report":null' in (routes.page_of(many).text or "")
    assert routes.page_of(context("billing", iss=OTHER)).status == 400
    assert counted.counts == {"shown billing": 2, "refused": 1}


async def test_what_is_remembered_of_reports_is_bounded() -> None:
    """The oldest is forgotten first: it has expired long since."""
    sealed = [seal(context("billing", sid=str(nth)), KEYS, NOW) for nth in range(3)]
    report = {"how": "done", "clients": ["answered"]}
    async with face(remembered=2) as asked:
        for each in (*sealed, sealed[2], sealed[0]):
            assert await asked.report(each, report) == 204
        assert asked.counts == {"done: billing=reached": 4, "repeated": 1}
