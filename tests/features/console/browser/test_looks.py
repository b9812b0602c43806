"""Every page and dialog for everybody: axe finds nothing in light and dark, nothing scrolls sideways at 320 pixels."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.features.console.browser.conftest import SRE, NewWindow, Service
from tests.features.console.browser.window import PAGES, Window
from tests.support.npm_modules import node_modules
from tests.system.site import ISSUER
from tests.system.worker_process import WorkerProcess

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CLIENT = f"client?client_id=shop&iss={ISSUER}"


async def things_to_see(service: Service, running: WorkerProcess) -> None:
    """Make one client fail, and create dead letters of another."""
    service.answer("shop", 503, "upstream connect error or disconnect/reset before headers: connection failure")
    service.answer("payroll", 404, "<html><body><h1>404 Not Found</h1></body></html>")
    await service.sign_out(running, "shop", 3)
    await service.sign_out(running, "payroll", 3)
    await running.until_metric(3.0, "dead_letters_total")


async def pause_views(window: Window) -> AsyncIterator[str]:
    """Pause and resume the client of the open page, and yield the name of each dialog, of a mistake and of a result."""
    page = window.page
    await page.get_by_role("button", name="Pause …").click()
    await window.dialog.get_by_label("For").select_option("until …")
    yield "Pause …"
    await window.dialog.get_by_label("Until", exact=True).fill("2020-01-02T03:04:05")
    await window.dialog.get_by_label("Reason").fill("deploy")
    await window.dialog.get_by_role("button", name="Pause it").click()
    await expect(window.dialog.get_by_role("alert")).to_be_visible()
    yield "a mistake in a pause"
    await window.dialog.get_by_label("For").select_option("1h")
    await window.dialog.get_by_role("button", name="Pause it").click()
    await expect(window.dialog).to_contain_text("applied this")
    yield "paused"
    await page.keyboard.press("Escape")
    await window.go("pauses")
    yield "pauses with rows"
    await page.get_by_role("button", name="Resume shop …").click()
    yield "Resume …"
    await window.dialog.get_by_role("button", name="Resume it").click()
    await expect(window.dialog).to_contain_text("applied this")
    yield "resumed"
    await page.keyboard.press("Escape")


async def views(window: Window) -> AsyncIterator[str]:
    """Open each page and dialog, and yield its name."""
    page = window.page
    for place in PAGES:
        await window.go(place)
        yield place
    await window.go("doctor")
    await page.get_by_role("button", name="Run checks").click()
    await expect(page.locator(".findings > li").first).to_be_visible()
    yield "findings"
    await window.go(CLIENT)
    yield "client"
    await page.locator("summary").click()
    yield "paused lines"
    async for name in pause_views(window):
        yield name
    await window.go(CLIENT)
    for name in ("Resolved …", "Canary …"):
        await page.get_by_role("button", name=name).click()
        await expect(window.dialog.locator("[role=status]")).to_have_count(0)
        yield name
        await page.keyboard.press("Escape")
    await window.go("dead")
    for name in ("Replay these 3 …", "Discard these 3 …"):
        await page.get_by_role("button", name=name).click()
        await expect(window.dialog.locator(".count")).to_be_visible()
        yield name
        await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Show").first.click()
    await window.dialog.get_by_role("button", name="Show content").click()
    await expect(window.dialog.locator("pre")).to_be_visible()
    yield "letter"
    await page.keyboard.press("Escape")
    await page.locator("main .word").first.click()
    await expect(window.dialog.locator(".markdown p").first).to_be_visible()
    yield "explained"
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    yield "keyboard"
    await page.keyboard.press("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(service: Service, running: WorkerProcess, new_window: NewWindow, scheme: str) -> None:
    """By the rules of WCAG 2.2 AA and axe's best practices."""
    await things_to_see(service, running)
    axe = (node_modules(Path(__file__).parent) / "axe-core/axe.min.js").read_text()
    window = await new_window(running, color_scheme=scheme, viewport={"width": 1440, "height": 900}, bypass_csp=True)
    window.attacked = True  # axe itself is a script of another
    await window.open()
    await expect(window.page.locator("#token")).to_be_visible()
    found = {"sign-in": await violations(window.page, axe)}
    await window.sign_in(SRE)
    async for name in views(window):
        found[name] = await violations(window.page, axe)
    assert {name: each for name, each in found.items() if each} == {}


async def violations(page: Page, axe: str) -> list[Any]:
    """Return the accessibility violations that axe finds on the current page."""
    if not await page.evaluate("Boolean(window.axe)"):
        await page.evaluate(axe)
    ran = await page.evaluate("rules => axe.run(document, { runOnly: rules })", RULES)
    return [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in ran["violations"]]


@pytest.mark.parametrize("width", [320, 768])
async def test_nothing_scrolls_sideways(
    service: Service, running: WorkerProcess, new_window: NewWindow, width: int
) -> None:
    """Tables scroll in themselves."""
    await things_to_see(service, running)
    window = await new_window(running, viewport={"width": width, "height": 640})
    await window.sign_in(SRE)
    wide = {}
    async for name in views(window):
        wide[name] = await window.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert {name: more for name, more in wide.items() if more > 0} == {}
