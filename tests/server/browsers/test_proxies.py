"""The web listener behind the proxies of an identity server's origin, set up word for word as the documents say."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from notifier.domain.front_channel_context import LONGEST, seal
from notifier.server.browsers.front_channel_routes import FrontChannelRoutes
from notifier.server.browsers.web_app import web_app
from tests.certificates import authority
from tests.proxies import proxied
from tests.server.browsers.test_front_channel_routes import DONE, ISS, KEYS, Counted, access, context
from tests.server.serving import NOW, serving


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
    sealed = seal(context("billing", "shop"), KEYS, NOW)
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
        assert (await ask("GET", f"/connect/notify/front-channel/{'A' * LONGEST}"))[0] == 400
        assert (await ask("GET", "/connect/authorize"))[2] == "theirs /connect/authorize secret"
    assert counted.counts["done: billing=reached shop=unreachable"] == 1
    assert counted.counts["refused"] == 1


async def _theirs(request: web.Request) -> web.Response:
    return web.Response(text=f"theirs {request.path} {request.cookies.get('idsrv')}")
