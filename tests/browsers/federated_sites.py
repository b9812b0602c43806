"""Three sites: a client, its identity server, and the upstream provider where that one signs its users in.

mod_auth_openidc is the client, a node-oidc-provider the identity server, which resolves sessions for notifier.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from joserfc.jwk import RSAKey
from playwright.async_api import Page

from notifier.model.record import record
from tests.browsers.debian_browsers import text
from tests.browsers.front_channel_sites import LOGGED_OUT, Sites, sites
from tests.browsers.real_sites import INTRANET, SECRET, fill_in, intranet_of, others, registered, signed_out_server
from tests.support.rabbitmq_node import free_ports

COOKIE_HOSTS = ("app.corp.test", "app")
LEFT = {third: (left, left) for third, left in ((True, "s_lax s_strict"), (False, "s_lax s_none s_strict"))}
"""What `kept_cookies` finds after a sign-out, by whether cookies of other sites are allowed."""


@record
class UpstreamSite:
    """A provider that is there already, or will be. `more`: of notifier's settings for it."""

    issuer: str
    authorization: str
    token: str
    more: Mapping[str, Any]


@record
class FederatedSites:
    """What runs. `intranet` is where mod_auth_openidc protects a page."""

    harness: Sites
    intranet: str
    upstream: UpstreamSite

    async def sign_in(self, page: Page, user: str, password: str, name: str = "username") -> None:
        """At all clients; mod_auth_openidc leads to the upstream's own form. `name`: of its field for the user."""
        for host in COOKIE_HOSTS:
            await page.goto(self.harness.url(host, "/rp/sign-in"))
        await page.goto(f"{self.intranet}/protected/index.html")
        await page.locator(f"input[name={name}]").wait_for()
        assert page.url.startswith(self.upstream.issuer)
        await fill_in(page, {name: user, "password": password})
        assert await self.session_lives(page)

    async def session_lives(self, page: Page) -> bool:
        """Whether the client knows the browser, without asking the identity server again."""
        await page.goto(f"{self.intranet}/nothing-is-here")
        there = "fetch('/protected/index.html', {redirect: 'manual', cache: 'no-store'}).then((answer) => answer.ok)"
        return bool(await page.evaluate(there))

    async def until_asked(self) -> None:
        """Wait until notifier's page has reported the answer of each client, the failing ones too."""
        assert self.harness.worker is not None
        until = self.harness.worker.until_metric
        for name in ("intranet", "nothing", "error", "elsewhere", "unframed", "subdomain", "elsewhere-cookie"):
            await until(1, "front_channel_clients_total", client_id=name, result="reached")
        await until(1, "front_channel_clients_total", client_id="hang", result="unknown")

    async def kept_cookies(self, page: Page) -> tuple[str, str]:
        """What is left of the sessions of two clients that know theirs by a cookie.

        The first is on the identity server's site, the second on a separate site.
        """
        left = []
        for host in COOKIE_HOSTS:
            await page.goto(self.harness.url(host, "/rp/whoami?again"))
            left.append(await text(page))
        return left[0], left[1]

    async def counted(self, **labels: str) -> float:
        """How many requests of the upstream had this result."""
        assert self.harness.worker is not None
        return await self.harness.worker.metric("upstream_requests_total", upstream="company", **labels)


def identity_server(port: int, issuer: str, client: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The settings of a node-oidc-provider with one client."""
    key = RSAKey.generate_key(2048, {"kid": "r1", "use": "sig", "alg": "RS256"})
    jwks = {"keys": [key.as_dict(private=True)]}
    return {
        "port": port, "issuer": issuer, "clients": [client], "jwks": jwks, "also": [], "template": LOGGED_OUT,
        "sign_outs": {}, **more,
    }  # fmt: skip


@asynccontextmanager
async def federated_sites(
    folder: Path, pem: Path, upstream: UpstreamSite, *, show_names: bool = False
) -> AsyncIterator[FederatedSites]:
    """Start all sites except the upstream."""
    behind, apache = free_ports(2)
    (folder / "here").mkdir()
    here, intranet = f"http://127.0.0.1:{behind}", f"https://{INTRANET}:{apache}"

    def upstreams(harness: Sites) -> Mapping[str, Any]:
        asked = {"http": {"url": f"{here}/own/sessions"}}
        company = {
            "issuer": upstream.issuer,
            "client_id": "login",
            "iss": harness.iss,
            "resolve": asked,
            "front_channel": True,
        }
        return {"company": {**company, **upstream.more}}

    def clients(harness: Sites) -> Mapping[str, Any]:
        page = {"frontchannel_logout_uri": f"{intranet}/protected/callback?logout=get", "client_name": "Intranet"}
        named = {
            name: {"frontchannel_logout_uri": uri, "client_name": name.capitalize()}
            for name, uri in others(harness).items()
        }
        return {"intranet": page, **named}

    async with sites(
        folder / "here", pem, clients, server=here, upstreams=upstreams, limit="3s", show_names=show_names
    ) as harness:
        of_upstream = {
            "issuer": upstream.issuer, "authorization": upstream.authorization, "token": upstream.token,
            "client_id": "login", "secret": SECRET,
        }  # fmt: skip
        client = registered("intranet", f"{intranet}/protected/callback")
        login = identity_server(behind, harness.iss, client, upstream=of_upstream, also=[*others(harness)])
        with intranet_of(harness, apache):
            async with signed_out_server(folder / "login", login):
                yield FederatedSites(harness=harness, intranet=intranet, upstream=upstream)
