"""The web listener behind the proxies of an identity server's origin, set up word for word as in the documents."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from notifier.configuration.clients.layer import BuildContext
from notifier.configuration.loading import LoadedConfiguration
from notifier.features.browsers.doctor_pages import page_checks
from notifier.features.browsers.front_channel_context import MAX_CONTEXT_CHARACTERS, seal_context
from notifier.features.browsers.front_channel_routes import FrontChannelRoutes
from notifier.model.registry import Registry
from notifier.network.http.issuer_documents import DocumentReader
from notifier.network.listeners.web_app import web_app
from notifier.operators.doctor.doctor import Severity
from notifier.tokens.key_ring import KeyRing
from tests.features.browsers.test_front_channel_routes import DONE, ISS, KEYS, Counted, access, context
from tests.publishing.serving import NOW, serving
from tests.settings.whole_settings import SETTINGS
from tests.support.certificates import authority
from tests.support.proxies import proxied

POLICY = "Content-Security-Policy"
HIDE = f"proxy_hide_header {POLICY};"
ROOM = "access_log off;"  # where the documents' configuration has room for more directives


@pytest.mark.full
@pytest.mark.parametrize("kind", ["nginx", "apache"])
async def test_a_page_and_its_report_pass_a_real_proxy(kind: str, tmp_path: Path) -> None:
    """The prefix goes, the headers stay, no cookie comes through, and the longest context fits; the rest is theirs."""
    seen: list[str] = []

    async def look(request: web.Request) -> web.Response:
        seen.append(f"{request.path} {request.headers.get('Cookie')}")
        return web.Response()

    counted = Counted()
    routes = [*FrontChannelRoutes(access(counted)).routes(), web.get("/look", look)]
    own = web.Application()
    own.add_routes([web.get("/{all:.*}", _theirs)])
    authority_of_test = authority(tmp_path / "ca")
    pem = authority_of_test.issue("localhost", "127.0.0.1")
    sealed = seal_context(context("billing", "shop"), KEYS, NOW)
    async with (
        serving(web_app(routes)) as notifier,
        serving(own) as theirs,
        proxied(kind, tmp_path / kind, pem=pem, notifier=notifier.url, other=theirs.url) as port,
        aiohttp.ClientSession(cookies={"idsrv": "secret"}, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        base = f"https://127.0.0.1:{port}"

        async def ask(method: str, path: str, **more: Any) -> tuple[int, str, str]:
            async with session.request(method, base + path, ssl=False, **more) as answer:
                return answer.status, answer.headers.get("Content-Security-Policy", ""), await answer.text()

        status, policy, text = await ask("GET", f"/connect/notify/front-channel/{sealed}")
        assert (status, policy.endswith(f"frame-ancestors {ISS}")) == (200, True)
        assert f'"report":"/connect/notify/front-channel/{sealed}"' in text
        assert (await ask("POST", f"/connect/notify/front-channel/{sealed}", data=json.dumps(DONE)))[0] == 204
        assert (await ask("GET", "/connect/notify/look"))[0] == 200
        assert seen == ["/look None"]
        assert (await ask("GET", f"/connect/notify/front-channel/{'A' * MAX_CONTEXT_CHARACTERS}"))[0] == 400
        assert (await ask("GET", "/connect/authorize"))[2] == "theirs /connect/authorize secret"
    assert counted.counts["done: billing=reached shop=unreachable"] == 1
    assert counted.counts["refused"] == 1


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "instead", "phrase"),
    [
        ("nginx", {}, "ok: the proxy passes pages on, with their headers and without cookies"),
        ("apache", {}, "ok: the proxy passes pages on, with their headers and without cookies"),
        ("nginx", {ROOM: "add_header X-Content-Type-Options nosniff always;"}, "ok: the proxy passes pages on"),
        ("nginx", {'proxy_set_header Cookie "";': ""}, "warning: the proxy passes cookies on"),
        ("nginx", {"notifier:8090/": "notifier:8090"}, "failed: notifier answers 404, since the URL that"),
        ("nginx", {"/connect/notify/ {": "/connect/else/ {"}, "failed: another server answers with 200"),
        ("nginx", {ROOM: "proxy_hide_header Cache-Control;"}, "failed: the proxy removes Cache-Control"),
        ("nginx", {ROOM: "add_header X-Frame-Options DENY always;"}, "warning: the proxy adds X-Frame-Options: DENY"),
        ("nginx", {ROOM: f"add_header {POLICY} default-src always;"}, f"failed: the proxy adds a second {POLICY}"),
        (
            "nginx",
            {ROOM: f"{HIDE} add_header {POLICY} x always;"},
            f"warning: {POLICY} differs from this release's value",
        ),
        (
            "nginx",
            {"proxy_pass http://notifier:8090/;": "return 302 http://notifier:8090;"},
            "failed: another server answers with 302",
        ),
        ("nginx", {"proxy_pass": "proxy_pass http://127.0.0.1:1; #"}, "failed: another server answers with 502"),
        ("nginx", {"location": "large_client_header_buffers 4 4k; location"}, "another server answers with 414"),
    ],
)
async def test_the_doctor_names_each_fault_of_a_real_proxy(
    kind: str, instead: dict[str, str], phrase: str, tmp_path: Path
) -> None:
    """What the documents set up is well; each thing that may be wrong there is named."""
    own = web.Application()
    own.add_routes([web.get("/{all:.*}", _theirs)])
    authority_of_test = authority(tmp_path / "ca")
    pem = authority_of_test.issue("localhost", "127.0.0.1")
    reader = DocumentReader()
    async with (
        serving(web_app(FrontChannelRoutes(access(Counted())).routes())) as notifier,
        serving(own) as theirs,
        proxied(kind, tmp_path / kind, pem=pem, notifier=notifier.url, other=theirs.url, instead=instead) as port,
    ):
        loaded = _loaded(f"https://127.0.0.1:{port}/connect/notify", authority_of_test.ca_file)
        [check] = page_checks(loaded, reader)
        [finding] = await check.run()
    await reader.close()
    assert phrase in f"{finding.level}: {finding.text}"
    assert finding.advice or finding.level is Severity.OK


def _loaded(url: str, ca_file: Path) -> LoadedConfiguration:
    """Return settings of an issuer with pages, and of a test issuer, which has no checks. Only the CA is read."""
    keys, tested = [{"file": str(ca_file)}], "https://notifier.invalid"
    settings = SETTINGS.model_validate(
        {
            "issuers": {ISS: {"keys": keys, "tls": {"ca_file": str(ca_file)}}, tested: {"keys": keys}},
            "web": {"keys_file": str(ca_file), "issuers": {ISS: {"url": url}, tested: {"url": f"{tested}/notify"}}},
        }
    )
    return LoadedConfiguration(
        settings=settings, features=(), registry=Registry(), keys=KeyRing({}), tokens=None, stamps={},
        build_context=BuildContext(settings=settings, algorithms_of=lambda _iss: frozenset()),
    )  # fmt: skip


async def _theirs(request: web.Request) -> web.Response:
    return web.Response(text=f"theirs {request.path} {request.cookies.get('idsrv')}")
