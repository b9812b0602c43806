"""A client is paused and resumed: the dialogs, the list, the pages of others, and the audit log."""

import asyncio
import re
from typing import Any

from playwright.async_api import Route, expect

from tests.features.console.browser.conftest import SRE, SUPPORT, NewWindow, Service
from tests.features.console.browser.window import Window
from tests.system.command import notifier_at
from tests.system.site import ISSUER
from tests.system.worker_process import WorkerProcess

SHOP = f"client?client_id=shop&iss={ISSUER}"
MARKUP = "<img src=x onerror=run()><b>\"'"


async def pause(window: Window, reason: str) -> None:
    """Pause the client of the open page for four hours."""
    await window.page.get_by_role("button", name="Pause …").click()
    await expect(window.dialog.get_by_role("button", name="Pause it")).to_be_disabled()
    await window.dialog.get_by_label("For").select_option("4h")
    await window.dialog.get_by_label("Reason").fill(reason)
    await window.dialog.get_by_role("button", name="Pause it").click()
    await expect(window.dialog).to_contain_text("1 of 1 worker applied this.")


async def test_client_is_paused_and_resumed(service: Service, running: WorkerProcess, new_window: NewWindow) -> None:
    """Nothing is sent to it meanwhile; each page shows who paused it, why and until when, as text."""
    service.answer("shop", 503)
    await service.sign_out(running, "shop")
    await running.until_metric(1.0, "attempts_total", client_id="shop", reason="server_error")
    window = await new_window(running)
    page, dialog = window.page, window.dialog
    await window.sign_in(SRE)
    await window.go(SHOP)
    await pause(window, MARKUP)
    await expect(dialog).to_contain_text("Paused by alice until")
    await expect(dialog).to_contain_text(MARKUP)
    await page.keyboard.press("Escape")
    await expect(page.locator(".band.big")).to_contain_text("Paused: by alice until")
    await expect(page.locator(".band.big")).to_contain_text(MARKUP)
    called = len(service.clients.at("shop"))
    service.answer("shop", 200)
    await service.sign_out(running, "shop", 2)
    await running.until_metric(2.0, "deferrals_total", client_id="shop", cause="paused")
    await window.go("overview")
    await expect(window.row("shop")).to_contain_text(re.compile(r"paused\s+until \d\d:\d\d:\d\d"))
    await expect(page.get_by_text("1 client is paused.")).to_be_visible()
    await window.go("clients?state=paused")
    await expect(window.row("shop")).to_have_count(1)
    await window.go("pauses")
    await expect(window.row("shop")).to_contain_text(MARKUP)
    await expect(window.row("shop").get_by_role("cell", name="0", exact=True)).to_be_visible()  # none expires before
    assert await page.evaluate("document.querySelectorAll('#app img[src=x], #app main b').length") == 0
    assert len(service.clients.at("shop")) == called
    await page.get_by_role("button", name="Resume shop …").click()
    await dialog.get_by_role("button", name="Resume it").click()
    await expect(dialog).to_contain_text("It is resumed. 1 of 1 worker applied this.")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("table", name="Ended pauses").locator("tbody tr")).to_contain_text("alice")
    await running.until_metric(3.0, "deliveries_settled_total", client_id="shop", fate="delivered")


async def test_pause_until_a_time_replaces_another(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """The dialog shows the pause in force, and afterwards which one was replaced. A mistake is shown there."""
    window = await new_window(running)
    page, dialog = window.page, window.dialog
    await window.sign_in(SRE)
    await window.go(SHOP)
    await pause(window, "first")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Change the pause …").click()
    await expect(dialog).to_contain_text("Paused by alice until")
    await dialog.get_by_label("For").select_option("until …")
    await dialog.get_by_label("Until", exact=True).fill("2020-01-02T03:04:05")
    await dialog.get_by_label("Reason").fill("second")
    await dialog.get_by_role("button", name="Pause it").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("must be in the future")
    await dialog.get_by_label("For").select_option("15m")
    await dialog.get_by_role("button", name="Pause it").click()
    await expect(dialog).to_contain_text("It replaces: paused by alice")
    await expect(dialog).to_contain_text("first")


async def test_followers_can_be_paused_too(running: WorkerProcess, new_window: NewWindow) -> None:
    """The button waits for its answer. An unknown number of deliveries that may expire is shown as such."""
    sent, answered = list[Any](), asyncio.Event()

    async def respond(route: Route) -> None:
        sent.append(route.request.post_data_json)
        if len(sent) > 1:
            await answered.wait()
        pause = {"client_id": "shop", "iss": ISSUER, "who": "alice", "until": "2030-01-01T00:00:00Z", "reason": "x"}
        workers = {"seen": 1, "applied": ["a"], "late": []}
        followers = ["shop-us"] if len(sent) == 1 else []
        answer = {"paused": [pause], "former": [], "workers": workers, "expiring": None, "followers": followers}
        await route.fulfill(json=answer)

    window = await new_window(running)
    await window.sign_in(SRE)
    await window.page.route("**/v1/pause", respond)
    await window.go(SHOP)
    await pause(window, "deploy")
    await expect(window.dialog).to_contain_text("Unknown: how many pending deliveries may expire before its end.")
    await expect(window.dialog).to_contain_text("Still called, since each has its own pause: shop-us.")
    button = window.dialog.get_by_role("button", name="Pause these too")
    await button.click()
    await expect(button).to_be_disabled()
    answered.set()
    await expect(button).to_have_count(0)
    assert [each.get("followers", False) for each in sent] == [False, True]


async def test_token_that_may_not_repair_sees_pauses(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """Without buttons."""
    members = {"client_id": "shop", "iss": ISSUER, "for": "1h", "reason": "deploy"}
    assert (await running.ask("POST", "/v1/pause", SRE, members))[0] == 200
    window = await new_window(running)
    await window.sign_in(SUPPORT)
    for place in ("pauses", "overview", SHOP):
        await window.go(place)
        await expect(window.page.get_by_role("main")).to_contain_text("shop")
        await expect(window.page.get_by_role("button", name=re.compile("Pause|Resume"))).to_have_count(0)
    await expect(window.page.locator(".band.big")).to_contain_text("Paused: by alice until")


async def test_audit_log_names_who_paused(service: Service, running: WorkerProcess, new_window: NewWindow) -> None:
    """The token's name is proven, that of the command line is claimed: user and host."""
    members = {"client_id": "shop", "iss": ISSUER, "for": "1h", "reason": "deploy"}
    assert (await running.ask("POST", "/v1/pause", SRE, members))[0] == 200
    resume = ("resume", "--client-id", "shop", "--iss", ISSUER)
    done = await notifier_at(service.site, *resume, settings={"LOGNAME": "dora"})
    assert done.returncode == 0, done.stderr
    await running.until_logged("client_resumed")
    window = await new_window(running)
    await window.sign_in(SRE)
    await window.go("acts")
    paused, resumed = window.row("client paused"), window.row("client resumed")
    await expect(paused.get_by_role("cell", name="alice", exact=True)).to_be_visible()
    await expect(paused.first).to_contain_text("reason: deploy")
    await expect(resumed).to_contain_text(re.compile(r"dora@\S+ \(claimed\)"))
