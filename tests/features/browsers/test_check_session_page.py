"""The check-session page: its settings, and how it is served."""

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import pytest
from pydantic import ValidationError

from notifier.features.browsers.web_pages import (
    CheckSessionRoutes,
    read_check_session_script,
)
from notifier.features.browsers.web_settings import STATE_COOKIES, CheckSessionSettings, SessionFormula
from notifier.model.client import Client
from notifier.model.registry import Registry
from notifier.network.listeners.web_app import web_app
from tests.publishing.serving import ISS, serving

# ── The check-session page as it is served: the same for everybody, its script named by hash, and no list of clients


SHOP = Client(
    iss=ISS,
    client_id="shop",
    backchannel_logout_uri=None,
    redirect_origins=("https://shop.example.com", "https://s.x:1"),
)
PAGES = {
    str(formula): CheckSessionSettings.model_construct(
        issuer=ISS, formula=formula, cookie=STATE_COOKIES.get(formula, "its<own")
    )
    for formula in SessionFormula
}


@asynccontextmanager
async def asking(clients: Mapping[str, Client]) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve a page for each formula, under the formula's name."""
    pages = CheckSessionRoutes(PAGES.get, lambda: Registry(clients={ISS: clients}), read_check_session_script())
    async with (
        serving(web_app(pages.routes())) as listener,
        aiohttp.ClientSession(f"{listener.url}/check-session/") as session,
    ):
        yield session


@pytest.mark.parametrize("formula", SessionFormula)
async def test_the_page_runs_its_own_script_alone_and_may_be_kept(formula: SessionFormula) -> None:
    """By any client's page, and by caches: it holds what is configured, and nothing of a request."""
    async with asking({"shop": SHOP}) as session, session.get(formula, headers={"Cookie": "a=b"}) as answer:
        text, headers = await answer.text(), answer.headers
        assert (answer.status, answer.content_type, answer.charset) == (200, "text/html", "utf-8")
    assert headers["Cache-Control"] == "public, max-age=3600"
    assert (headers["Cross-Origin-Resource-Policy"], headers["Referrer-Policy"]) == ("cross-origin", "no-referrer")
    assert not {"Set-Cookie", "Vary", "X-Frame-Options"} & set(headers)
    given, script = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    connect = " connect-src 'self';" if formula is SessionFormula.KEYCLOAK else ""
    policy = f"default-src 'none'; script-src 'sha256-{digest}';{connect} base-uri 'none'; form-action 'none'"
    assert headers["Content-Security-Policy"] == policy
    assert json.loads(given) == {"formula": formula, "cookie": PAGES[formula].cookie}
    assert "<" not in given, "no name can end the element"


async def test_the_page_is_as_small_for_many_clients_as_for_none() -> None:
    """10,000 clients add nothing to it, and their names are nowhere in it."""
    sizes = []
    for many in (0, 10_000):
        clients = {f"app-{n}": SHOP for n in range(many)}
        async with asking(clients) as session, session.get("keycloak") as answer:
            text = await answer.text()
            assert "shop.example.com" not in text
            sizes.append(len(text))
    assert sizes[0] == sizes[1] < 6000


async def test_an_unconfigured_page_is_404() -> None:
    """404."""
    async with asking({}) as session:
        for name in ("other", "keycloak/init", "duende%2f.."):
            async with session.get(name) as answer:
                assert answer.status == 404


# ── Which check-session pages a configuration has ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("formula", "cookie"), [("duende", "idsrv.session"), ("wso2", "opbs"), ("keycloak", "KEYCLOAK_SESSION")]
)
def test_a_product_s_cookie_need_not_be_named(formula: str, cookie: str) -> None:
    """And may be, where somebody has renamed it."""
    assert CheckSessionSettings.model_validate({"issuer": ISS, "formula": formula}).state_cookie == cookie
    renamed = {"issuer": ISS, "formula": formula, "cookie": "__Host-x"}
    assert CheckSessionSettings.model_validate(renamed).state_cookie == "__Host-x"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"formula": "specification"}, "cookie is required with formula specification"),
        ({"formula": "specification", "cookie": "a b"}, "pattern"),
        ({"formula": "specification", "cookie": "a;b"}, "pattern"),
        ({"formula": "okta"}, "keycloak"),
    ],
)
def test_a_page_that_could_not_work_is_refused(given: dict[str, str], words: str) -> None:
    """At the start, and not in a browser."""
    with pytest.raises(ValidationError, match=words):
        CheckSessionSettings.model_validate({"issuer": ISS, **given})
