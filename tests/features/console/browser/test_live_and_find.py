"""The live page, and the search for one user's logout, without names of users."""

import pytest
from playwright.async_api import Request, expect

from tests.browsers.debian_browsers import KINDS
from tests.features.console.browser.conftest import SRE, SUPPORT, NewWindow, Service
from tests.system.worker_process import WorkerProcess


async def test_live_stands_still_under_the_pointer(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """New rows are counted while somebody points at a row, and come when the pointer leaves. It can be paused."""
    service.answer("shop", 503)
    window = await new_window(running)
    page = window.page
    await window.sign_in(SUPPORT)
    await window.go("live")
    await service.sign_out(running, "shop")
    await expect(window.row("failed").first).to_be_visible()
    rows = await page.locator("main tbody tr").count()
    await window.row("failed").first.hover()
    await service.sign_out(running, "payroll", answered=404)
    await expect(page.locator("form [role=status]")).to_contain_text("newer: shown when the pointer leaves")
    assert await page.locator("main tbody tr").count() == rows
    await page.mouse.move(5, 5)
    await expect(window.row("payroll").first).to_be_visible()
    await page.get_by_role("button", name="Pause").click()
    await service.sign_out(running, "payroll")
    await running.until_metric(2.0, "dead_letters_total")
    await expect(page.locator("form [role=status]")).to_have_text("Paused.")
    await page.get_by_role("button", name="Resume").click()
    await expect(window.row("dead")).to_have_count(2)


@pytest.mark.parametrize("kind", KINDS)
async def test_finding_a_user_lists_the_deliveries(
    service: Service, running: WorkerProcess, new_window: NewWindow, kind: str
) -> None:
    """At each client: waiting, given up. Who is looked for is in no address, and no answer names the user."""
    service.answer("shop", 503)
    service.answer("payroll", 404)
    event = {"iss": "https://id.example.com", "sub": "alice@example.com", "sid": "secret-session"}
    await running.post({**event, "clients": ["shop", "payroll"]})
    await running.until_metric(1.0, "dead_letters_total")
    window = await new_window(running, kind)
    page = window.page
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    page.on("request", note)
    await window.sign_in(SRE)
    await window.go("find")
    await page.fill("input[name=what]", "alice@example.com")
    await page.get_by_role("button", name="Find").click()
    await expect(window.row("payroll").filter(has_text="dead letters")).to_be_visible()
    await expect(window.row("shop").filter(has_text="pending")).to_be_visible()
    for place in ("overview", "clients", "dead", "waiting", "live?good=true", "acts"):
        await window.go(place)
        shown = await page.inner_text("body")
        assert "alice@example.com" not in shown
        assert "secret-session" not in shown
    assert not [url for url in asked if "alice" in url]
    await window.go("dead")
    await page.get_by_role("button", name="Show").click()
    await expect(window.dialog.locator(".outcomes li")).to_have_count(1)
    assert "alice@example.com" not in await window.dialog.inner_text()
    await window.dialog.get_by_role("button", name="Show content").click()
    await expect(window.dialog.locator("pre")).to_contain_text("alice@example.com")
    await running.until_logged("dead_letters_shown", lambda line: line["who"] == "alice")
