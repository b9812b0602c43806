"""An operator signs in at a real Keycloak by a browser, acts, and is out once the role is withdrawn.

Left out where Keycloak cannot be had, unless NOTIFIER_TEST_KEYCLOAK is `required`.
"""

import asyncio
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browsers.debian_browsers import KINDS
from tests.features.console.browser.conftest import NewWindow, Service
from tests.features.console.browser.window import Window
from tests.features.console.staff_realm import PASSWORD, REALM, staff_oidc, staff_realm
from tests.support.keycloak_shared import shared_keycloak
from tests.support.rabbitmq_node import free_ports

pytestmark = pytest.mark.timeout(900)  # at the first time on a machine Keycloak is got and built
NOWHERE = "http://127.0.0.1:1/"


async def signed_in(window: Window, user: str) -> Page:
    """The page of a client, by way of Keycloak's own, which has scripts, styles and cookies."""
    window.attacked = True
    page = window.page
    await window.open("#/client?iss=https%3A%2F%2Fid.example.com&client_id=shop")
    await page.locator("button.main", has_text="Sign in at").click()
    await page.fill("#username", user)
    await page.fill("#password", PASSWORD)
    await page.click("#kc-login")
    await expect(page.locator(".pulse.good")).to_be_visible()
    assert "code=" not in page.url
    return page


@pytest.mark.parametrize("kind", KINDS)
async def test_an_operator_signs_in_and_out_of_the_role(
    service: Service, new_window: NewWindow, pytestconfig: pytest.Config, kind: str
) -> None:
    """A support role sees no button. A new token comes unasked while the session lasts, without the role none does."""
    keycloak = shared_keycloak(pytestconfig).keycloak

    async def admin(method: str, path: str, body: object = None) -> Any:
        return await asyncio.to_thread(keycloak.admin, method, path, body)

    [port] = free_ports(1)
    await admin("POST", "", staff_realm(NOWHERE, f"http://127.0.0.1:{port}/console/"))
    service.site.config["api"] |= {"listen": f"127.0.0.1:{port}", "console": {"oidc": staff_oidc(keycloak.url)}}
    service.site.write()
    service.answer("shop", 503)
    try:
        async with service.worker() as running:
            await service.sign_out(running, "shop")
            bob = await signed_in(await new_window(running, kind), "bob")
            page = await signed_in(await new_window(running, kind), "alice")
            for shown, buttons in ((bob, 0), (page, 1)):
                await expect(shown.locator(".band.big")).to_contain_text("Down since")
                await expect(shown.get_by_role("button", name="Mended …")).to_have_count(buttons)
            [alice] = await admin("GET", f"/{REALM}/users?username=alice")
            role = await admin("GET", f"/{REALM}/roles/sre")
            await admin("DELETE", f"/{REALM}/users/{alice['id']}/role-mappings/realm", [role])
            await page.evaluate("sessionStorage.setItem('notifier.expires', Date.now() / 1000 + 30)")
            await page.reload()
            await expect(page.locator("[role=alert]")).to_contain_text("You are signed in, but nothing in realm_access")
    finally:
        await admin("DELETE", f"/{REALM}")
