"""A sign-out at a real upstream provider, by a real browser: its page frames notifier's, which asks a real client."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from tests.browsers.devtools import BrowserPage, driven_chromium
from tests.browsers.front_channel_sites import LOGGED_OUT, UPSTREAM, Sites, key_of, sites
from tests.browsers.real_sites import INTRANET, SECRET, arrived, intranet_of, registered, signed_out_server
from tests.certificates import authority
from tests.proxies import proxied
from tests.rabbitmq_node import free_ports
from tests.receivers_of_the_world.mod_auth_openidc import PAGE


def server(port: int, issuer: str, client: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The settings of an identity server with one client."""
    key = RSAKey.generate_key(2048, {"kid": "r1", "use": "sig", "alg": "RS256"})
    jwks = {"keys": [key.as_dict(private=True)]}
    return {
        "port": port, "issuer": issuer, "clients": [client], "jwks": jwks, "also": [], "template": LOGGED_OUT,
        "told": {}, **more,
    }  # fmt: skip


async def session_lives(page: BrowserPage, intranet: str) -> bool:
    """Whether the client knows the browser, without asking the identity server again."""
    await page.goto(f"{intranet}/nothing-is-here")
    return bool(await page.eval("fetch('/protected/index.html', {redirect: 'manual'}).then((answer) => answer.ok)"))


@pytest.mark.parametrize("third_party_cookies", [True, False], ids=["allowed", "blocked"])
async def test_the_client_of_the_client_is_told(tmp_path: Path, third_party_cookies: bool) -> None:
    """Two frames deep, three sites. Whose session it is says the identity server that signed in at the upstream."""
    above, behind, apache = free_ports(3)
    (tmp_path / "here").mkdir()
    intranet = f"https://{INTRANET}:{apache}"
    pem = authority(tmp_path / "ca").issue(UPSTREAM)
    proxy = proxied(
        "nginx", tmp_path / "nginx", pem=pem, notifier="http://127.0.0.1:1", other=f"http://127.0.0.1:{above}"
    )
    async with proxy as above_port:
        upstream = f"https://{UPSTREAM}:{above_port}"

        def upstreams(world: Sites) -> Mapping[str, Any]:
            asked = {"http": {"url": f"http://127.0.0.1:{behind}/own/sessions"}}
            return {"company": {"issuer": upstream, "client_id": "login", "iss": world.iss, "resolve": asked}}

        def clients(_world: Sites) -> Mapping[str, Any]:
            return {"intranet": f"{intranet}/protected/callback?logout=get"}

        here = f"http://127.0.0.1:{behind}"
        async with sites(tmp_path / "here", clients, server=here, upstreams=upstreams, limit="3s") as world:
            frames = {"login": f"{world.iss}/connect/notify/upstreams/company/frontchannel-logout"}
            at_the_upstream = {
                "issuer": upstream, "authorization": "/auth", "token": f"http://127.0.0.1:{above}/token",
                "client_id": "login", "secret": SECRET,
            }  # fmt: skip
            company = server(above, upstream, registered("login", f"{world.iss}/upstream"), told={"frames": frames})
            client = registered("intranet", f"{intranet}/protected/callback")
            login = server(behind, world.iss, client, upstream=at_the_upstream)
            browser_settings: dict[str, Any] = {"hosts": {"*.test": "127.0.0.1"}, "keys": [world.key, key_of(pem)]}
            with intranet_of(world, tmp_path / "apache", apache):
                async with (
                    signed_out_server(tmp_path / "company", company),
                    signed_out_server(tmp_path / "login", login),
                    driven_chromium(**browser_settings, third_party_cookies=third_party_cookies) as browser,
                ):
                    page = await browser.page()
                    await page.goto(f"{intranet}/protected/index.html")
                    await arrived(page, "!!document.querySelector('input[name=login]')")
                    assert await page.eval("location.origin") == upstream
                    await page.eval("document.querySelector('input[name=login]').value = 'alice'")
                    await page.eval("document.querySelector('input[name=password]').value = 'x'")
                    await page.eval("void document.querySelector('form').submit()")
                    await arrived(page, f"document.body && document.body.innerText.includes({PAGE!r})")
                    assert await session_lives(page, intranet)

                    await page.goto(f"{upstream}/session/end")
                    await page.eval("void document.querySelector('button[value=yes]').click()")
                    await arrived(page, "typeof loaded == 'number'")
                    assert world.worker is not None
                    await world.worker.until_metric(
                        1, "front_channel_clients_total", client_id="intranet", result="reached"
                    )
                    assert not await session_lives(page, intranet)
                    assert (
                        await world.worker.metric("upstream_requests_total", upstream="company", result="accepted") == 1
                    )
