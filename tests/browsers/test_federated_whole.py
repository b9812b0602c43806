"""A sign-out at a real upstream provider, by a real browser: its page frames notifier's, which asks a real client."""

from pathlib import Path

import pytest

from tests.browsers.conftest import NewPage
from tests.browsers.debian_browsers import KINDS, until
from tests.browsers.federated_sites import LEFT, UpstreamSite, federated_sites, identity_server
from tests.browsers.front_channel_sites import LOGGED_OUT, UPSTREAM
from tests.browsers.pictures import STYLE, keep_picture
from tests.browsers.real_sites import registered, signed_out_server
from tests.support.proxies import proxied
from tests.support.rabbitmq_node import free_ports

SIGNED_OUT = LOGGED_OUT.replace("<h1>You have signed out", f"{STYLE}<h1>Company: you have signed out")


@pytest.mark.parametrize("third_party_cookies", [True, False], ids=["allowed", "blocked"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_client_of_the_client_is_notified(
    new_page: NewPage, tmp_path: Path, pem: Path, kind: str, third_party_cookies: bool
) -> None:
    """Two frames deep, three sites, and beside clients that answer badly or never.

    The identity server, which signed in at the upstream, resolves the session. Below the upstream's page the site of
    the identity server counts as another too, so a client there loses its cookies as any does.
    """
    [above] = free_ports(1)
    page = await new_page(kind, third_party_cookies=third_party_cookies)
    proxy = proxied(
        "nginx", tmp_path / "nginx", pem=pem, notifier="http://127.0.0.1:1", other=f"http://127.0.0.1:{above}"
    )
    async with proxy as port:
        issuer = f"https://{UPSTREAM}:{port}"
        upstream = UpstreamSite(
            issuer=issuer, authorization="/auth", token=f"http://127.0.0.1:{above}/token", more={}
        )  # fmt: skip
        async with federated_sites(tmp_path, pem, upstream, show_names=True) as federated:
            harness = federated.harness
            frames = {"login": f"{harness.iss}/connect/notify/upstreams/company/frontchannel-logout"}
            client = registered("login", f"{harness.iss}/upstream")
            company = identity_server(above, issuer, client, sign_outs={"frames": frames}, template=SIGNED_OUT)
            async with signed_out_server(tmp_path / "company", company):
                await federated.sign_in(page, "alice", "x", "login")
                await page.goto(f"{issuer}/session/end")
                await page.click("button[value=yes]")
                await until(page, "typeof loaded == 'number'")
                await federated.until_asked()
                if kind == "chromium":
                    await keep_picture(page, tmp_path, "upstreams/nested.png")
                assert not await federated.session_lives(page)
                assert await federated.kept_cookies(page) == LEFT[third_party_cookies]
                assert await federated.counted(result="accepted") == 1
