"""An incident as an operator lives through it: a client goes down, is seen, tried, well; its letters are replayed."""

import pytest
from playwright.async_api import expect

from tests.browsers.debian_browsers import KINDS
from tests.features.console.browser.conftest import SRE, NewWindow, Service
from tests.system.worker_process import WorkerProcess


@pytest.mark.parametrize("kind", KINDS)
async def test_from_down_to_well_to_replayed(
    service: Service, running: WorkerProcess, new_window: NewWindow, kind: str
) -> None:
    """It is seen, tried and shown well where one looks, and "Mended" names the numbers."""
    window = await new_window(running, kind)
    page = window.page
    await window.sign_in(SRE)
    await expect(page.locator(".band.head")).to_contain_text("No problems.")

    service.answer("shop", 503, "upstream is away")
    await service.sign_out(running, "shop", 3)
    row = window.row("shop")
    await expect(row).to_be_visible()
    await expect(row).to_contain_text("upstream is away")
    await expect(page).to_have_title("(1) Overview · notifier")
    await expect(row.locator("td").nth(4)).to_have_text("3")

    get_well = service.hold("shop")
    await row.get_by_role("button", name="Retry now: shop").click()
    await service.until_watching(running)
    get_well()
    await expect(row.locator(".chip")).to_have_text("healthy")
    await expect(page.locator(".notices")).to_contain_text("shop: 3 of 3 deliveries delivered.")

    service.answer("payroll", 404, "no such page")
    await service.sign_out(running, "payroll", 2)
    await expect(page.locator('nav a[href="#/dead"] .badge')).to_have_text("2")
    service.answer("payroll", 200)
    await window.row("payroll").get_by_role("link", name="payroll").click()
    await page.get_by_role("button", name="Resolved …").click()
    await expect(window.dialog).to_contain_text("2 dead letters are replayed: refused 2.")
    await window.dialog.get_by_role("button", name="Replay 2 dead letters").click()
    await expect(window.dialog.locator(".account")).to_contain_text("2 dead letters replayed.")
    await expect(window.dialog.locator(".account")).to_contain_text("2 delivered")
    await expect(window.dialog.get_by_text("It has ended.")).to_be_visible()
    await window.dialog.get_by_role("button", name="Close").last.click()
    await expect(page.locator(".band.big")).to_contain_text("Healthy.")
    await expect(page.locator('nav a[href="#/dead"] .badge')).to_have_count(0)
