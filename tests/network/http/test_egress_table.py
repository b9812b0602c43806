"""Egress of requests: the table of the document, and real sockets."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

import pytest
import yaml
from aiohttp.abc import ResolveResult

from notifier.model.client import Client, EgressPolicy, Route
from notifier.model.delivery import ClientOverrides
from notifier.model.egress import check_address, check_uri
from notifier.model.outcome import HttpResponse, Reason, TransportFailure, TransportResult
from notifier.model.registry import Registry
from notifier.settings.policies import EgressSettings, override_policy
from tests.network.http.http_requests import ScriptedResolver, broken, opened, request
from tests.support import behaviours as do
from tests.support.receivers import deaf_port, scripted
from tools.egress_document import DOCUMENT, Row, document, shown

# ── Egress cases without a client: URIs as written, addresses of a name, settings ────────────────────────────────────

# `settings` are those under `egress`, and after a bar those of the client.


class Verdict(StrEnum):
    """The result of a case."""

    ALLOWED = "allowed"
    DENIED = "denied"  # and the text names the setting that would allow it
    MALFORMED = "malformed"  # no setting allows it


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A URI or address, the settings, and the expected verdict."""

    tried: str
    verdict: Verdict
    settings: str = ""


def policy(settings: str) -> EgressPolicy:
    """Return the policy of a client under these settings, read as from the file."""
    policy = EgressPolicy()
    for section in settings.split("|"):
        policy = override_policy(policy, EgressSettings.model_validate(yaml.safe_load(f"{{{section}}}")))
    return policy


def _cases(verdict: Verdict, settings: str, tried: str) -> list[Case]:
    return [Case(tried=each, verdict=verdict, settings=settings) for each in tried.split()]


LOOPBACK = "allow: [127.0.0.0/8, '::1/128']"

URIS = {
    "Public": _cases(
        Verdict.ALLOWED,
        "",
        """https://shop.example.com/logout?a=%2F https://shop.example.com:8443/ HTTPS://Shop.Example.COM./
        https://shop.example.com https://shop.example.com?tenant=1 https://under_score.example/ https://1a.example/
        https://shop.example.com:8443/logout?tenant=1&next=%2F%C3%A4&x=a+b https://xn--bcher-kva.example/
        https://localhost.example/ https://shop.localhost.example/ https://metadata.google.internal.example/
        https://instance-data.example/ https://8.8.8.8/ https://[2606:4700::1111]/ https://[2606:4700::1111]:443/""",
    ),
    "http": [
        *_cases(Verdict.DENIED, "", "http://shop.example.com/ http://8.8.8.8/"),
        *_cases(Verdict.ALLOWED, "allow_http: true", "http://shop.example.com/"),
        *_cases(Verdict.DENIED, "allow_http: true", "http://10.0.0.1/"),
        *_cases(Verdict.ALLOWED, "allow_http: false | allow_http: true", "http://shop.example.com/"),
        *_cases(Verdict.DENIED, "allow_http: true | allow_http: false", "http://shop.example.com/"),
    ],
    "Spellings of 127.0.0.1": _cases(
        Verdict.DENIED,
        "",
        """https://127.0.0.1/ https://127.0.0.1./ https://127.1/ https://127.0.1/ https://2130706433/ https://0x7f000001/
        https://0X7F.1/ https://0177.0.0.1/ https://017700000001/ https://0x7f.0.0.0x1/ https://0000000177.0.0.1/
        https://[::1]/ https://[0:0:0:0:0:0:0:1]/ https://[::ffff:127.0.0.1]/ https://[::ffff:7f00:1]/
        https://[64:ff9b::127.0.0.1]/ https://[64:ff9b:1::7f00:1]/ https://[2002:7f00:1::]/ https://[::127.0.0.1]/
        https://[2001:0:808:808::80ff:fffe]/ https://localhost/ https://LOCALHOST./ https://shop.localhost:8443/
        https://[::ffff:0:127.0.0.1]/ https://[2600:1::5efe:7f00:1]/ https://localhost.localdomain/ https://ip6-localhost/
        https://ip6-loopback/ https://localhost4/ https://localhost6/ https://localhost4.localdomain4/
        https://localhost6.localdomain6/ https://LOCALHOST6.localdomain6./""",
    ),
    "Spellings of an address that is allowed": [
        *_cases(
            Verdict.MALFORMED,
            LOOPBACK,
            "https://127.1/ https://2130706433/ https://0x7f000001/ https://0177.0.0.1/ https://127.0.0.1./",
        ),
        *_cases(Verdict.MALFORMED, "", "https://010.8.8.8/ https://134744072/"),
        *_cases(
            Verdict.ALLOWED, LOOPBACK, "https://127.0.0.1/ https://[::1]/ https://[0:0:0:0:0:0:0:1]/ https://localhost/"
        ),
    ],
    "Other addresses that are not public": _cases(
        Verdict.DENIED,
        "",
        """https://0/ https://0.0.0.0/ https://[::]/ https://10.1/ https://167772161/ https://012.0.0.1/ https://0xa.1/
        https://172.16.0.1/ https://192.168.257/ https://100.64.0.1/ https://169.254.1.1/ https://224.0.0.1/
        https://255.255.255.255/ https://[fc00::1]/ https://[fe80::1]/ https://[fec0::1]/ https://[ff02::1]/
        https://[2001:db8::1]/ https://[::ffff:8.8.8.8]/ https://[64:ff9b::10.0.0.1]/ https://[2002:808:808::1]/""",
    ),
    "Metadata of clouds": [
        *_cases(
            Verdict.DENIED,
            "",
            """https://169.254.169.254/ https://2852039166/ https://0xa9fea9fe/ https://0251.0376.0251.0376/
            https://[::ffff:a9fe:a9fe]/ https://[fd00:ec2::254]/ https://100.100.100.200/ https://168.63.129.16/
            https://metadata.google.internal/ https://instance-data/""",
        ),
        *_cases(
            Verdict.DENIED,
            "allow: [0.0.0.0/0, '::/0']",
            "https://169.254.169.254/ https://[::ffff:169.254.169.254]/ https://metadata.google.internal/",
        ),
        *_cases(
            Verdict.ALLOWED, "allow: [169.254.169.254/32]", "https://169.254.169.254/ https://metadata.google.internal/"
        ),
    ],
    "User names, ports, fragments, zones, and what else no setting allows": _cases(
        Verdict.MALFORMED,
        LOOPBACK,
        """https://user@shop.example.com/ https://user:password@shop.example.com/ https://8.8.8.8@127.0.0.1/
        https://127.0.0.1@shop.example.com/ https://@shop.example.com/ https://shop.example.com\\@127.0.0.1/
        https://shop.example.com:0/ https://shop.example.com:65536/ https://shop.example.com:/
        https://shop.example.com:80:80/ https://shop.example.com:+443/ https://shop.example.com/#x
        https://127.0.0.1#@shop.example.com/ https://[fe80::1%25eth0]/ https://[fe80::1%eth0]/ https://[::1%25lo]/
        https://[::1 https://::1/ https://[127.0.0.1]/ https://127.0.0.1.5/ https://256.0.0.1/ https://127.0.0.09/
        https://0x100000000/ https://%31%32%37.0.0.1/ https://①②⑦.0.0.1/ https://127。0。0。1/ https:///shop.example.com/
        https:shop.example.com //shop.example.com/ ftp://shop.example.com/ file:///etc/passwd gopher://127.0.0.1/
        /logout shop.example.com/logout https://:443/ https://shop.example.com/# https://shop.example.com:https/
        https://1.2.3.4.5/ https://099.0.0.1/ https://shop.example.123/ https://[v1.x]/ https://bücher.example/
        https://shop..example/ https://-shop.example/"""
        f" https://{'a' * 64}.example/ https://{'a.' * 130}example/",
    ),
}

_RANGES = """0.0.0.1 10.0.0.1 100.64.0.1 127.0.0.1 169.254.1.1 172.16.0.1 192.0.0.8 192.0.2.1 192.88.99.1 192.168.0.1
    198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ::ffff:8.8.8.8 ::ffff:10.0.0.1
    64:ff9b::169.254.169.254 64:ff9b::10.0.0.1 64:ff9b:1::10.0.0.1 64:ff9b:1::8.8.8.8 64:ff9b:2::1 100::1 2001::1
    2001:db8::1 2002:a00:1:: 3fff::1 4000::1
    fc00::1 fe80::1 fe80::1%lo fec0::1 ff02::1 169.254.169.254 fd00:ec2::254 168.63.129.16 0.0.0.0 100.127.255.255
    172.31.255.255 192.0.0.192 239.255.255.255 ::8.8.8.8 ::ffff:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b:1::1 2001:2::1
    2001:20::1 2002:7f00:1:: 2002:808:808::1 5f00::1 ff0e::1"""

ADDRESSES = {
    "A name that leads to": _cases(Verdict.DENIED, "", _RANGES),
    "A name that leads to a public address": _cases(
        Verdict.ALLOWED,
        "",
        "1.1.1.1 8.8.8.8 100.128.0.1 172.32.0.1 2606:4700::1111 2a00:1450:4001::1 64:ff9b::5db8:d822",
    ),
    "Settings": [
        *_cases(Verdict.ALLOWED, "allow: [10.0.0.0/8]", "10.0.0.1 64:ff9b::10.0.0.1"),
        *_cases(Verdict.DENIED, "allow: [10.0.0.0/8]", "172.16.0.1 ::ffff:10.0.0.1 64:ff9b::172.16.0.1"),
        *_cases(Verdict.DENIED, "deny: [8.8.8.0/24]", "8.8.8.8 64:ff9b::8.8.8.8"),
        *_cases(Verdict.DENIED, "deny: ['64:ff9b::/96']", "64:ff9b::8.8.8.8"),
        *_cases(Verdict.DENIED, "allow: [0.0.0.0/0, '::/0']", "64:ff9b::169.254.169.254 64:ff9b::6464:64c8"),
        *_cases(Verdict.DENIED, "allow: [10.0.0.0/8], deny: [10.1.0.0/16]", "10.1.0.1"),
        *_cases(Verdict.ALLOWED, "allow: [10.1.2.0/24], deny: [10.1.0.0/16]", "10.1.2.1"),
        *_cases(Verdict.DENIED, "allow: [10.1.0.0/16], deny: [10.1.0.0/16]", "10.1.0.1"),
        *_cases(Verdict.DENIED, "allow: ['64:ff9b::/96']", "64:ff9b::10.0.0.1"),
        *_cases(Verdict.DENIED, "allow: ['64:ff9b::/96'], deny: [8.0.0.0/8]", "64:ff9b::8.8.8.8"),
        *_cases(
            Verdict.DENIED,
            "allow: ['::/0']",
            """2002:a00:1:: 64:ff9b:1:a00:8:0:100:0 64:ff9b:1:ff:a:0:800:0 64:ff9b:1::10.0.0.1 64:ff9b:1:2:3:4:10.0.0.1
            2001:0:808:808:0:0:f5ff:fffe ::ffff:127.0.0.1 ::10.0.0.1 ::ffff:0:10.0.0.1 2600:1::5efe:a00:1
            2600:1::200:5efe:a00:1 fe80::a9fe:a9fe fd00:42::42""",
        ),
        *_cases(Verdict.ALLOWED, "allow: ['::/0']", ":: ::1 ::8.8.8.8 fd00::1 2600:1::5efe:808:808"),
        *_cases(Verdict.ALLOWED, "allow: [0.0.0.0/0]", "10.0.0.1"),
        *_cases(Verdict.DENIED, "allow: [0.0.0.0/0, '::/0', 169.254.0.0/16]", "169.254.169.254 ::ffff:169.254.169.254"),
        *_cases(Verdict.ALLOWED, "allow: [10.1.2.0/24], deny: [10.0.0.0/8]", "10.1.2.3"),
        *_cases(Verdict.ALLOWED, "allow: [] | allow: [10.0.0.0/8]", "10.0.0.1"),
        *_cases(Verdict.DENIED, "allow: [10.0.0.0/8] | allow: []", "10.0.0.1"),
        *_cases(Verdict.DENIED, "allow: [10.0.0.0/8] | allow: [172.16.0.0/12]", "10.0.0.1"),
        *_cases(Verdict.DENIED, "deny: [8.8.8.0/24] | allow: [10.0.0.0/8]", "8.8.8.8"),
        *_cases(Verdict.ALLOWED, "deny: [8.8.8.0/24] | deny: []", "8.8.8.8"),
    ],
}


# ── Compare the result of every egress case with docs/evidence/egress.md, line by line ───────────────────────────────

# `python -m tools.egress_document` writes that file. The expected verdicts are in the cases. Nothing
# leaves loopback:
# denied URIs are requested, of allowed public addresses only the verdict is computed.

OPEN = "allow: [127.0.0.0/8], allow_http: true"
Story = Callable[[], Awaitable[tuple[str, str, TransportResult | str]]]


# ── the cases ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def uri_results(cases: list[Case]) -> AsyncIterator[tuple[Verdict, str]]:
    """Test URIs: denied ones are requested too, also through a proxy, and none is connected to."""
    async with opened() as http, scripted() as proxy:
        for case in cases:
            egress = policy(case.settings)
            text = check_uri(case.tried, egress)
            if text is None:
                yield Verdict.ALLOWED, ""
                continue
            for through in (None, proxy.origin):
                wire = await http.post(request(case.tried, egress=egress, proxy=through))
                assert wire == TransportFailure(reason=Reason.EGRESS_DENIED, ambiguous=False, text=text), case
            yield Verdict.DENIED if "egress." in text else Verdict.MALFORMED, text
        assert proxy.connections == 0


async def address_results(cases: list[Case]) -> AsyncIterator[tuple[Verdict, str]]:
    """Test addresses of a name."""
    names = {f"shop{number}.example": [case.tried] for number, case in enumerate(cases)}
    async with opened(ScriptedResolver(names)) as http:
        for name, case in zip(names, cases, strict=True):
            egress = policy(case.settings)
            text = check_address(case.tried, egress)
            if text is not None:
                wire = await http.post(request(f"https://{name}/", egress=egress))
                assert wire == TransportFailure(reason=Reason.EGRESS_DENIED, ambiguous=False, text=text), case
            yield (Verdict.ALLOWED, "") if text is None else (Verdict.DENIED, text)


class Rebinding(ScriptedResolver):
    """Each look-up of a name returns its next address."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Implement aiohttp's interface."""
        found = await super().resolve(host, port, family)
        self._names[host] = self._names[host][1:] or self._names[host]
        return found[:1]


async def several_one_denied() -> tuple[str, str, TransportResult | str]:
    names = ScriptedResolver({"shop.example": ["10.0.0.1", "127.0.0.1"]})
    async with opened(names) as http, scripted(host="shop.example") as shop:
        wire = await http.post(request(shop.url, egress=policy(OPEN)))
        assert shop.connections == 1
    return "A name with the addresses 10.0.0.1 and 127.0.0.1", OPEN, wire


async def several_all_denied() -> tuple[str, str, TransportResult | str]:
    async with opened(ScriptedResolver({"shop.example": ["10.0.0.1", "192.168.0.1"]})) as http:
        wire = await http.post(request("http://shop.example/", egress=policy(OPEN)))
    return "A name with the addresses 10.0.0.1 and 192.168.0.1", OPEN, wire


async def rebound() -> tuple[str, str, TransportResult | str]:
    """The second look-up returns another address than the first, which was checked and connected to."""
    names = Rebinding({"shop.example": ["127.0.0.1", "10.0.0.1"]})
    async with opened(names) as http, scripted(host="shop.example") as shop:
        assert await http.post(request(shop.url, egress=policy(OPEN))) == HttpResponse(status=200)
        [pool] = http._pools.values()
        pool.session.connector.clear_dns_cache()  # type: ignore[union-attr]  # as after 10 s
        wire = await http.post(request(shop.url, egress=policy(OPEN), new_connection=True))
        assert shop.connections == 1
    return "A name that leads to 127.0.0.1 at first, and to 10.0.0.1 when it is looked up again", OPEN, wire


async def redirected() -> tuple[str, str, TransportResult | str]:
    async with opened() as http, scripted() as landing, scripted(do.redirect(landing.url, 307)) as shop:
        wire = await http.post(request(shop.url, egress=policy(OPEN)))
        assert landing.connections == 0
    return "A redirect to another port: not followed", OPEN, wire


async def reused_connection() -> tuple[str, str, TransportResult | str]:
    """A connection that one client's policy allows exists; another client requests the same name."""
    strict = "allow_http: true"
    async with opened(ScriptedResolver({"shop.example": ["127.0.0.1"]})) as http, scripted(host="shop.example") as shop:
        assert await http.post(request(shop.url, egress=policy(OPEN))) == HttpResponse(status=200)
        wire = await http.post(request(shop.url, egress=policy(strict)))
        assert shop.connections == 1
    return "A connection to 127.0.0.1 kept for another client, whose settings allow it", strict, wire


async def proxied_name() -> tuple[str, str, TransportResult | str]:
    """The local resolver knows no name: only the proxy resolves it."""
    strict = "allow_http: true"
    async with opened(ScriptedResolver({})) as http, scripted() as proxy:
        wire = await http.post(request("http://shop.example/", egress=policy(strict), proxy=proxy.origin))
        assert proxy.requests[0].target == "http://shop.example/"
    return "With `proxy`: any other name; the proxy looks it up, and so its address is not judged", strict, wire


async def inline_elsewhere() -> tuple[str, str, TransportResult | str]:
    """The registered client may use loopback; an event names a URI with another port for it."""
    async with opened() as http, scripted() as shop, scripted() as other:
        route = Route(egress=policy(OPEN), headers=(("Authorization", "Bearer hush-hush"),))
        registered = Client(iss="i", client_id="shop", backchannel_logout_uri=shop.url, route=route)
        template = Client(iss="", client_id="", backchannel_logout_uri=None, registered=False)
        registry = Registry(clients={"i": {"shop": registered}}, unregistered=template)
        client = registry.resolve("i", "shop", ClientOverrides(backchannel_logout_uri=other.url))
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
    reused_connection,
    proxied_name,
    inline_elsewhere,
)
REACHED: dict[Story, int] = {several_one_denied: 200, redirected: 307, proxied_name: 200}
"""Which stories come to an answer, and to which; the others to a denial."""


async def tried() -> list[tuple[str, str, list[Row]]]:
    """Test every case. Each verdict is the expected one."""
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
        assert (wire.status if isinstance(wire, HttpResponse) else None) == REACHED.get(story), story
        rows.append((what, settings, shown(wire)))
    return [*sections, ("On the wire", "what happens", rows)]


async def test_document_has_the_result_of_every_case() -> None:
    """The text of each denial names its setting."""
    assert DOCUMENT.read_text("utf-8") == document(await tried())


async def test_request_reveals_nothing_of_our_network() -> None:
    """It receives the request line, its own name, and headers that are the same everywhere."""
    async with opened() as http, scripted() as shop:
        assert await http.post(request(shop.url)) == HttpResponse(status=200)
    [received] = shop.requests
    names = {name for name, _ in received.headers}
    assert names == {"host", "accept", "accept-encoding", "user-agent", "content-type", "content-length"}
    assert received.header("host") == [f"127.0.0.1:{shop.port}"]
    assert os.uname().nodename not in repr(received)


@pytest.mark.parametrize("behaviour", [do.answer(400), do.reset()])
async def test_request_reveals_nothing_of_the_previous_attempt(behaviour: do.Behaviour) -> None:
    """Neither the previous outcome nor the attempt number is sent to the client."""
    async with opened() as http, scripted(behaviour, do.answer(200)) as shop:
        await http.post(request(shop.url))
        await http.post(request(shop.url, new_connection=True))
    first, second = shop.requests
    assert (first.headers, first.target) == (second.headers, second.target)


# ── Forbidden addresses are not connected to, whatever name resolves to them ─────────────────────────────────────────


async def test_failure_of_an_allowed_address_is_reported() -> None:
    """Not the denial of the name's other address."""
    names = ScriptedResolver({"two.example": ["10.1.2.3", "127.0.0.1"]})
    async with opened(names) as transport, deaf_port() as port:
        wire = await transport.post(request(f"http://two.example:{port}/"))
    assert broken(wire) == (Reason.CONNECT, False)


async def test_of_very_many_addresses_a_few_are_tried() -> None:
    """The cost grows with their square: a client's name server would block the loop until the deadline."""
    names = {"many.example": [f"127.1.{number >> 8}.{number & 255}" for number in range(2000)]}
    names["six.example"] = [*(f"fd00::{number:x}" for number in range(2000)), "127.0.0.1"]
    async with opened(ScriptedResolver(names)) as transport, deaf_port() as port:
        wire = await transport.post(request(f"http://many.example:{port}/", within=5.0))
        assert isinstance(wire, TransportFailure)
        assert wire.reason is Reason.CONNECT
        async with scripted(host="six.example") as receiver:
            assert await transport.post(request(receiver.url)) == HttpResponse(status=200)
