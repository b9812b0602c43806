"""Tries every egress case and compares what comes of it with docs/evidence/egress.md, line by line.

`python -m tools.egress_document` writes that file. The verdicts themselves stand in the cases. Nothing leaves loopback:
what is denied is really requested, of what is allowed elsewhere only the judgement is taken.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp.abc import ResolveResult

from notifier.model.client import Client, Route
from notifier.model.delivery import Inline
from notifier.model.egress import check_uri, judge
from notifier.model.outcome import Answer, Break, Reason, Wire
from notifier.model.registry import Registry
from tests.network.http.egress_cases import ADDRESSES, URIS, Case, Verdict, policy
from tests.network.http.http_requests import ScriptedResolver, opened, request
from tests.support import behaviours as do
from tests.support.receivers import scripted
from tools.egress_document import DOCUMENT, Row, document, shown

OPEN = "allow: [127.0.0.0/8], allow_http: true"
Story = Callable[[], Awaitable[tuple[str, str, Wire | str]]]


# ── what is tried ───────────────────────────────────────────────────────────────────────────────────────────────


async def uri_results(cases: list[Case]) -> AsyncIterator[tuple[Verdict, str]]:
    """Of URIs: what is denied is requested too, through a proxy as well, and neither is ever connected to."""
    async with opened() as http, scripted() as proxy:
        for case in cases:
            egress = policy(case.settings)
            text = check_uri(case.tried, egress)
            if text is None:
                yield Verdict.ALLOWED, ""
                continue
            for through in (None, proxy.origin):
                wire = await http.post(request(case.tried, egress=egress, proxy=through))
                assert wire == Break(reason=Reason.EGRESS_DENIED, ambiguous=False, text=text), case
            yield Verdict.DENIED if "egress." in text else Verdict.MALFORMED, text
        assert proxy.connections == 0


async def address_results(cases: list[Case]) -> AsyncIterator[tuple[Verdict, str]]:
    """Of addresses that a name leads to."""
    names = {f"shop{number}.example": [case.tried] for number, case in enumerate(cases)}
    async with opened(ScriptedResolver(names)) as http:
        for name, case in zip(names, cases, strict=True):
            egress = policy(case.settings)
            text = judge(case.tried, egress)
            if text is not None:
                wire = await http.post(request(f"https://{name}/", egress=egress))
                assert wire == Break(reason=Reason.EGRESS_DENIED, ambiguous=False, text=text), case
            yield (Verdict.ALLOWED, "") if text is None else (Verdict.DENIED, text)


class Rebinding(ScriptedResolver):
    """Each look-up of a name takes its next address."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Of aiohttp."""
        found = await super().resolve(host, port, family)
        self._names[host] = self._names[host][1:] or self._names[host]
        return found[:1]


async def several_one_denied() -> tuple[str, str, Wire | str]:
    names = ScriptedResolver({"shop.example": ["10.0.0.1", "127.0.0.1"]})
    async with opened(names) as http, scripted(host="shop.example") as shop:
        wire = await http.post(request(shop.url, egress=policy(OPEN)))
        assert shop.connections == 1
    return "A name with the addresses 10.0.0.1 and 127.0.0.1", OPEN, wire


async def several_all_denied() -> tuple[str, str, Wire | str]:
    async with opened(ScriptedResolver({"shop.example": ["10.0.0.1", "192.168.0.1"]})) as http:
        wire = await http.post(request("http://shop.example/", egress=policy(OPEN)))
    return "A name with the addresses 10.0.0.1 and 192.168.0.1", OPEN, wire


async def rebound() -> tuple[str, str, Wire | str]:
    """The second look-up gives another address than the first, which was judged and connected to."""
    names = Rebinding({"shop.example": ["127.0.0.1", "10.0.0.1"]})
    async with opened(names) as http, scripted(host="shop.example") as shop:
        assert await http.post(request(shop.url, egress=policy(OPEN))) == Answer(status=200)
        [pool] = http._pools.values()
        pool.session.connector.clear_dns_cache()  # type: ignore[union-attr]  # what 10 s do
        wire = await http.post(request(shop.url, egress=policy(OPEN), new_connection=True))
        assert shop.connections == 1
    return "A name that leads to 127.0.0.1 at first, and to 10.0.0.1 when it is looked up again", OPEN, wire


async def redirected() -> tuple[str, str, Wire | str]:
    async with opened() as http, scripted() as landing, scripted(do.redirect(landing.url, 307)) as shop:
        wire = await http.post(request(shop.url, egress=policy(OPEN)))
        assert landing.connections == 0
    return "A redirect to another port: not followed", OPEN, wire


async def lent() -> tuple[str, str, Wire | str]:
    """A connection that one client's policy allows is there; another client asks for the same name."""
    strict = "allow_http: true"
    async with opened(ScriptedResolver({"shop.example": ["127.0.0.1"]})) as http, scripted(host="shop.example") as shop:
        assert await http.post(request(shop.url, egress=policy(OPEN))) == Answer(status=200)
        wire = await http.post(request(shop.url, egress=policy(strict)))
        assert shop.connections == 1
    return "A connection to 127.0.0.1 kept for another client, whose settings allow it", strict, wire


async def proxied_name() -> tuple[str, str, Wire | str]:
    """The resolver here knows no name at all: nobody looks it up but the proxy."""
    strict = "allow_http: true"
    async with opened(ScriptedResolver({})) as http, scripted() as proxy:
        wire = await http.post(request("http://shop.example/", egress=policy(strict), proxy=proxy.origin))
        assert proxy.requests[0].target == "http://shop.example/"
    return "With `proxy`: any other name; the proxy looks it up, and so its address is not judged", strict, wire


async def proxied_disguise() -> tuple[str, str, Wire | str]:
    strict = "allow_http: true"
    async with opened() as http, scripted() as proxy:
        wire = await http.post(request("http://127.1/", egress=policy(strict), proxy=proxy.origin))
        assert proxy.connections == 0
    return "With `proxy`: http://127.1/", strict, wire


async def inline_elsewhere() -> tuple[str, str, Wire | str]:
    """The registered client may reach loopback; an event names a URI of another port for it."""
    async with opened() as http, scripted() as shop, scripted() as other:
        route = Route(egress=policy(OPEN), headers=(("Authorization", "Bearer hush-hush"),))
        registered = Client(iss="i", client_id="shop", backchannel_logout_uri=shop.url, route=route)
        template = Client(iss="", client_id="", backchannel_logout_uri=None, registered=False)
        registry = Registry(clients={"i": {"shop": registered}}, unregistered=template)
        client = registry.resolve("i", "shop", Inline(backchannel_logout_uri=other.url))
        assert client is not None
        assert (client.route.headers, client.route.proxy) == ((), None)
        wire = await http.post(request(other.url, egress=client.route.egress, headers=client.route.headers))
        assert other.connections == 0
    return "An event's inline URI of another port than the registered one, whose client alone may reach it", OPEN, wire


STORIES: tuple[Story, ...] = (
    several_one_denied,
    several_all_denied,
    rebound,
    redirected,
    lent,
    proxied_name,
    proxied_disguise,
    inline_elsewhere,
)
REACHED: dict[Story, int] = {several_one_denied: 200, redirected: 307, proxied_name: 200}
"""Which stories come to an answer, and to which; the others to a denial."""


async def tried() -> list[tuple[str, str, list[Row]]]:
    """Try every case. Each verdict is the one that the case demands."""
    sections = []
    for of, first, results in ((URIS, "URI", uri_results), (ADDRESSES, "address", address_results)):
        for title, cases in of.items():
            rows, left = [], iter(cases)
            async for verdict, text in results(cases):
                case = next(left)
                assert verdict is case.verdict, (case, text)
                rows.append((case.tried, case.settings, f"{verdict}{': ' if text else ''}{text}"))
            sections.append((title, first, rows))
    rows = []
    for story in STORIES:
        what, settings, wire = await story()
        assert (wire.status if isinstance(wire, Answer) else None) == REACHED.get(story), story
        rows.append((what, settings, shown(wire)))
    return [*sections, ("On the wire", "what happens", rows)]


async def test_the_document_says_what_comes_of_every_case() -> None:
    """Each text of a denial names its setting."""
    assert DOCUMENT.read_text("utf-8") == document(await tried())


async def test_a_client_learns_nothing_of_our_network() -> None:
    """What it sees is the request line, its own name, and headers that are the same everywhere."""
    async with opened() as http, scripted() as shop:
        assert await http.post(request(shop.url)) == Answer(status=200)
    [received] = shop.requests
    names = {name for name, _ in received.headers}
    assert names == {"host", "accept", "accept-encoding", "user-agent", "content-type", "content-length"}
    assert received.header("host") == [f"127.0.0.1:{shop.port}"]
    assert os.uname().nodename not in repr(received)


@pytest.mark.parametrize("behaviour", [do.answer(400), do.reset()])
async def test_the_next_request_tells_nothing_of_the_last(behaviour: do.Behaviour) -> None:
    """Neither what an attempt met, nor which it is, is told to the client."""
    async with opened() as http, scripted(behaviour, do.answer(200)) as shop:
        await http.post(request(shop.url))
        await http.post(request(shop.url, new_connection=True))
    first, second = shop.requests
    assert (first.headers, first.target) == (second.headers, second.target)
