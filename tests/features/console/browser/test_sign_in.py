"""Signing in at the organisation's provider, as a browser does it: there and back, and nothing of it stays anywhere."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import expect

from tests.browsers.debian_browsers import KINDS
from tests.features.console.browser.conftest import NewWindow, Service
from tests.features.console.browser.window import Window
from tests.features.console.console_provider import ConsoleProvider, oidc
from tests.system.worker_process import WorkerProcess

TOKEN = "sessionStorage.getItem('notifier.token')"
ENDS_SOON = (
    "sessionStorage.setItem('notifier.expires', Date.now() / 1000 + 30); sessionStorage.removeItem('notifier.renewed')"
)


@asynccontextmanager
async def signing_in(
    service: Service, new_window: NewWindow, kind: str = "chromium"
) -> AsyncIterator[tuple[ConsoleProvider, Window]]:
    """A provider at which alice is signed in, and a window on the console, which knows no token."""
    async with ConsoleProvider() as provider:
        provider.clock = time.time
        service.site.config["api"]["console"] = {"oidc": oidc(provider.base)}
        service.site.write()
        async with service.worker() as running:
            yield provider, await opened(running, provider, new_window, kind)


async def opened(running: WorkerProcess, provider: ConsoleProvider, new_window: NewWindow, kind: str) -> Window:
    """Return a new window that shows the sign-in."""
    window = await new_window(running, kind)
    window.elsewhere = (provider.base,)
    await window.open("#/clients?q=shop")
    await expect(window.page.locator("button.main", has_text="Sign in at")).to_be_visible()
    return window


async def through_provider(window: Window) -> None:
    """By the button."""
    await window.page.locator("button.main", has_text="Sign in at").click()


async def is_back(window: Window) -> None:
    """At the place that was left, signed in."""
    await expect(window.page.locator(".pulse.good")).to_be_visible()
    await expect(window.row("shop")).to_be_visible()
    assert window.page.url == f"{window.base}/console/#/clients?q=shop"


@pytest.mark.parametrize("kind", KINDS)
async def test_there_and_back(service: Service, new_window: NewWindow, kind: str) -> None:
    """The place is kept, at the sign-in and when a new token comes before the old one ends."""
    async with signing_in(service, new_window, kind) as (provider, window):
        await through_provider(window)
        await is_back(window)
        first = await window.page.evaluate(TOKEN)
        assert await window.page.evaluate("Object.keys(sessionStorage).sort()") == [
            "notifier.expires",
            "notifier.token",
        ]
        await window.page.reload()
        await is_back(window)
        assert provider.asked.count("/token") == 1, "a reload asks nobody"
        await window.page.evaluate(ENDS_SOON)
        await window.page.reload()
        await provider.until(lambda: provider.asked.count("/token") == 2)
        await is_back(window)
        assert await window.page.evaluate(TOKEN) != first


async def test_a_sign_out_at_the_provider_ends_the_session_here(service: Service, new_window: NewWindow) -> None:
    """No page of the provider is shown unasked."""
    async with signing_in(service, new_window) as (provider, window):
        await through_provider(window)
        await is_back(window)
        provider.signed_in = False
        await window.page.evaluate(ENDS_SOON)
        await window.page.reload()
        await expect(window.page.locator("[role=alert]")).to_contain_text("The provider returned: login_required.")
        provider.signed_in = True
        await through_provider(window)
        await is_back(window)


async def test_a_user_without_scopes_sees_the_reason(service: Service, new_window: NewWindow) -> None:
    """No token is kept."""
    async with signing_in(service, new_window) as (provider, window):
        provider.access = {"groups": ["staff"]}
        await through_provider(window)
        await expect(window.page.locator("[role=alert]")).to_contain_text("You are signed in, but nothing in groups")
        assert await window.page.evaluate(TOKEN) is None


async def test_an_unrequested_authorization_response_is_refused(service: Service, new_window: NewWindow) -> None:
    """A link by which somebody would have an operator signed in as another."""
    async with signing_in(service, new_window) as (provider, window):
        await window.open("?code=c0de&state=made-up#/clients")
        await expect(window.page.locator("[role=alert]")).to_contain_text("did not begin in this tab")
        assert window.page.url == f"{window.base}/console/#/clients"
        assert "/token" not in provider.asked
