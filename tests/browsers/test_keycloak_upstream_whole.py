"""A sign-out at a real Keycloak that users sign in through, by a real browser, by its page.

Left out where Keycloak cannot be had, unless NOTIFIER_TEST_KEYCLOAK is `required`.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from notifier.model.record import record
from tests.browsers.conftest import NewPage
from tests.browsers.debian_browsers import KINDS, until
from tests.browsers.federated_sites import LEFT, UpstreamSite, federated_sites
from tests.browsers.front_channel_sites import OP, UPSTREAM, Sites
from tests.browsers.pictures import keep_picture
from tests.browsers.real_sites import SECRET
from tests.features.registries.keycloak_realm import shop_user
from tests.support.keycloak_installation import KeycloakMissing, required
from tests.support.keycloak_server import KeycloakServer
from tests.support.rabbitmq_node import free_ports

pytestmark = pytest.mark.timeout(900)  # at the first time on a machine Keycloak is got and built
PASSWORD = "passw0rd-of-alice"
PLAIN = "<style>* {background-image: none !important} html, body {background: #333 !important}</style>"
AT = "/connect/notify/upstreams/company"


@record
class CompanyKeycloak:
    """A Keycloak under https, with a separate host name. It trusts the sites' authority, and resolves their address."""

    server: KeycloakServer
    url: str

    def upstream(self, realm: str) -> UpstreamSite:
        """A realm of it. Its metadata and keys are read on the inner address, as in a cluster."""
        inner = f"{self.server.url}/realms/{realm}"
        return UpstreamSite(
            issuer=f"{self.url}/realms/{realm}",
            authorization="/protocol/openid-connect/auth",
            token=f"{inner}/protocol/openid-connect/token",
            more={"discovery": f"{inner}/.well-known/openid-configuration"},
        )

    async def add_realm(self, realm: str, harness: Sites, attributes: dict[str, str], **more: Any) -> None:
        """With the client that our identity server is, and one user."""
        client = {"clientId": "login", "secret": SECRET, "redirectUris": [f"{harness.iss}/*"], "attributes": attributes}
        document = {"realm": realm, "displayName": "Company", "enabled": True, "clients": [client | more]}
        await asyncio.to_thread(self.server.admin, "POST", "", document)
        await asyncio.to_thread(self.server.admin, "POST", f"/{realm}/users", shop_user("alice", PASSWORD))


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory, pem: Path) -> Iterator[CompanyKeycloak]:
    """It is killed afterwards."""
    home = tmp_path_factory.mktemp("keycloak")
    [port] = free_ports(1)
    url = f"https://{UPSTREAM}:{port}"
    (home / "hosts").write_text(f"127.0.0.1 {OP}\n")
    try:
        server = KeycloakServer(
            home,
            options=[
                "--log-level=warn", f"--hostname={url}", "--hostname-backchannel-dynamic=true", f"--https-port={port}",
                f"--https-certificate-file={pem}", f"--https-certificate-key-file={pem}",
                f"--truststore-paths={pem.with_name('ca.pem')}",
            ],
            settings={"JAVA_OPTS_APPEND": f"-XX:TieredStopAtLevel=1 -Djdk.net.hosts.file={home}/hosts"},
        )  # fmt: skip
    except KeycloakMissing as missing:
        if required():
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    try:
        server.start()
        server.wait()
        yield CompanyKeycloak(server=server, url=url)
    finally:
        server.kill()


async def sign_out(page: Page, issuer: str) -> None:
    """By Keycloak's own pages."""
    await page.goto(f"{issuer}/protocol/openid-connect/logout")
    await page.click("[name=confirmLogout]")
    await until(page, "document.readyState == 'complete' && !document.querySelector('[name=confirmLogout]')")


@pytest.mark.parametrize("third_party_cookies", [True, False], ids=["allowed", "blocked"])
@pytest.mark.parametrize("kind", KINDS)
async def test_its_page_signs_out_at_the_client_of_the_client(
    company: CompanyKeycloak, new_page: NewPage, tmp_path: Path, pem: Path, kind: str, third_party_cookies: bool
) -> None:
    """Keycloak frames notifier's address for upstreams, whose page asks the clients: two frames deep."""
    realm = f"front-{kind}-{third_party_cookies}"
    upstream = company.upstream(realm)
    page = await new_page(kind, third_party_cookies=third_party_cookies)
    async with federated_sites(tmp_path, pem, upstream) as federated:
        harness = federated.harness
        attributes = {
            "frontchannel.logout.url": f"{harness.iss}{AT}/frontchannel-logout",
            "frontchannel.logout.session.required": "true",
        }
        await company.add_realm(realm, harness, attributes, frontchannelLogout=True)
        await federated.sign_in(page, "alice", PASSWORD)
        await sign_out(page, upstream.issuer)
        await federated.until_asked()
        if kind == "chromium":
            await page.evaluate(f"void document.body.insertAdjacentHTML('beforeend', {PLAIN!r})")
            await keep_picture(page, tmp_path, "upstreams/keycloak.png", 350)
        assert not await federated.session_lives(page)
        assert await federated.kept_cookies(page) == LEFT[third_party_cookies]
        assert await federated.counted(result="accepted") == 1
