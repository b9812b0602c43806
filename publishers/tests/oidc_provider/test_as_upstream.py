"""A real node-oidc-provider, without our package, as an upstream: its own logout token ends the sessions here."""

from pathlib import Path

import pytest

from publishers.tests.oidc_provider.browser import Browser
from publishers.tests.oidc_provider.clients import client as upstream_client
from publishers.tests.oidc_provider.provider import VERSIONS, Settings
from publishers.tests.oidc_provider.provider import running as provider_running
from publishers.tests.oidc_provider.rig import make_keys
from tests.support.rabbitmq_node import free_ports
from tests.system.clients import Clients, verify_all
from tests.system.site import ISSUER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import worker

pytestmark = pytest.mark.full


async def test_its_logout_token_reaches_our_own_client(tmp_path: Path) -> None:
    """Verified by its discovery and keys; what our client gets is a token of ours, with the session's own names."""
    port, web_port = free_ports(2)
    upstream = f"http://127.0.0.1:{port}"
    told_at = f"http://127.0.0.1:{web_port}/upstreams/op/backchannel-logout"
    settings = Settings(
        version=VERSIONS[0],
        port=port,
        issuer=upstream,
        clients=[{**upstream_client("mail"), "backchannel_logout_uri": told_at}],
        keys=str(make_keys(tmp_path).file),
    )
    async with Clients() as clients, provider_running(tmp_path, settings) as provider:
        site = Site(tmp_path, f"sqlite:{tmp_path}/q.db")
        site.serve_web(web_port)
        same = {"same_sub": {"prefix": "op|"}}
        site.config["upstreams"] = {
            "op": {"issuer": upstream, "client_id": "mail", "iss": ISSUER, "algorithms": ["ES256"], "resolve": same}
        }
        site.write_clients([client("shop", clients.url("shop"))])
        site.write()
        async with worker(site) as running, Browser(upstream) as browser:
            await running.until_ready()
            await browser.sign_in("mail")
            sid = browser.claims["mail"]["sid"]
            assert (await browser.sign_out("mail")).status == 303
            await clients.until_told("shop", [sid])

            async def accepted() -> list[str]:  # it says so in its own time
                return [each["client"] for each in provider.told if each["told"] == "backchannel.success"]

            assert await until(accepted, bool) == ["mail"]
            assert await running.metric("upstream_requests_total", upstream="op", result="accepted") == 1
            assert await running.stop() == 0
        verify_all(clients.hits, site.jwks)
        assert [(hit.claims["iss"], hit.claims["sub"]) for hit in clients.hits] == [(ISSUER, "op|alice")]
        assert sid not in running.log
