"""Nothing moves under a pointer, and all actions work by the keyboard."""

import json
import re
from typing import Any

from playwright.async_api import Page, expect

from tests.features.console.browser.conftest import SRE, NewWindow, Service
from tests.features.console.browser.window import Window
from tests.system.site import ISSUER, client
from tests.system.worker_process import WorkerProcess

NAMES = [f"client-{number}" for number in range(6)]


async def test_rows_keep_their_places_under_the_pointer(service: Service, new_window: NewWindow) -> None:
    """A recovered client stays as a row with its new state; a new row comes last, until the pointer leaves."""
    service.site.write_clients([client(name, service.clients.url(name)) for name in NAMES])
    async with service.worker() as running:
        for name in NAMES[:4]:
            await service.sign_out(running, name, 3, answered=503)
        window = await new_window(running, viewport={"width": 1440, "height": 900})
        await window.sign_in(SRE)
        await expect(window.row("client-")).to_have_count(4)
        before = await places(window.page)
        await window.row("client-").nth(2).hover()
        gone = (await window.row("client-").first.locator("a").first.inner_text()).strip()
        service.answer(gone, 200)
        status, _ = await running.ask("POST", "/v1/retry", SRE, {"client_id": gone, "iss": ISSUER})
        assert status == 202
        await service.sign_out(running, NAMES[5], 3, answered=503)
        await expect(window.row(NAMES[5])).to_be_visible()
        await expect(window.row(gone).locator(".chip")).to_have_text("healthy")
        after = await places(window.page)
        assert after[:4] == before
        assert after[4][0] == NAMES[5]
        await window.page.mouse.move(5, 5)
        await expect(window.row(gone)).to_have_count(0)
        await expect(window.row("client-")).to_have_count(4)


async def places(page: Page) -> list[Any]:
    """Return the name and vertical position of each row."""
    return list(
        await page.evaluate("""[...document.querySelectorAll("main tbody tr")].map((row) =>
            [row.querySelector("a").textContent, Math.round(row.getBoundingClientRect().top)])""")
    )


async def test_all_of_it_by_the_keyboard(service: Service, running: WorkerProcess, new_window: NewWindow) -> None:
    """From the sign-in to a replay: the focus follows, in dialogs too, and returns when they close."""
    await service.sign_out(running, "shop", 3, answered=503)
    await service.sign_out(running, "payroll", 2, answered=404)
    await running.until_metric(2.0, "dead_letters_total")
    window = await new_window(running)
    page, press = window.page, window.page.keyboard.press
    await window.open()
    await expect(page.locator("#token")).to_be_focused()
    await page.keyboard.type(SRE)
    await press("Enter")
    await expect(page.locator(".pulse.good")).to_be_visible()
    await press("g")
    await press("c")
    await expect(page.locator("h1")).to_have_text("Clients")
    await expect(page.locator("h1")).to_be_focused()
    await press("/")
    await page.keyboard.type("payr")
    await expect(window.row("shop")).to_have_count(0)
    await tab_to(window, "payroll")
    await press("Enter")
    await expect(page.locator("h1")).to_have_text("payroll")
    service.answer("payroll", 200)
    await tab_to(window, "Resolved …")
    await press("Enter")
    await expect(window.dialog.locator(".plan")).to_be_visible()
    assert await window.focused() == "Cancel"
    for _ in range(8):  # the focus stays inside
        await press("Tab")
        assert await page.evaluate("document.activeElement.matches('dialog *, body')")
    await tab_to(window, "Replay 2 dead letters")
    await press("Enter")
    await expect(window.dialog.get_by_text("It has ended.")).to_be_visible()
    assert await window.focused() == "Close"
    await press("Enter")
    await expect(window.dialog).to_have_count(0)
    assert await window.focused() == "Resolved …"
    await press("?")
    await expect(window.dialog).to_contain_text("Keys of the keyboard")
    await press("Escape")
    await expect(window.dialog).to_have_count(0)
    assert await window.focused() == "Resolved …"


async def test_typed_text_survives_redrawing(running: WorkerProcess, new_window: NewWindow) -> None:
    """News comes between two keys; and a blank at the end stays too, since a word may follow."""
    window = await new_window(running)
    await window.sign_in(SRE)
    await window.go("clients")
    await expect(window.row("shop")).to_be_visible()
    value = await window.page.evaluate("""async () => {
        const field = document.querySelector("main input[type=search]");
        field.value = "pay ";
        field.dispatchEvent(new Event("input", { bubbles: true }));
        document.querySelector(".me select").dispatchEvent(new Event("change", { bubbles: true }));  // draws the page
        await new Promise((done) => setTimeout(done, 0));
        return field.value;
    }""")
    assert value == "pay "
    await expect(window.row("shop")).to_have_count(0)
    assert window.page.url.endswith("?q=pay")
    assert await window.page.input_value("main input[type=search]") == "pay "
    await window.page.evaluate("location.hash = '#/clients?q=shop'")
    await expect(window.page.locator("main input[type=search]")).to_have_value("shop")


async def tab_to(window: Window, words: str) -> None:
    """Press Tab until an element with these words has the focus."""
    seen = []
    for _ in range(40):
        await window.page.keyboard.press("Tab")
        seen.append(await window.focused())
        if seen[-1] == words:
            return
    raise AssertionError(f"no Tab leads to {words}: {seen}")


async def test_a_number_is_typed_before_something_is_deleted(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """Later dead letters stay; pending deliveries are cancelled for one client only."""
    await service.sign_out(running, "payroll", 3, answered=404)
    await service.sign_out(running, "legacy", 2)
    await running.until_metric(3.0, "dead_letters_total")
    window = await new_window(running)
    page = window.page
    await window.sign_in(SRE)
    await window.go("dead")
    await page.get_by_role("button", name="Discard these 3 …").click()
    await expect(window.dialog.locator(".count")).to_contain_text("3 will be deleted permanently.")
    await expect(window.dialog.locator(".facts")).to_contain_text("all of them")
    await expect(window.dialog.get_by_label("By client").locator("li")).to_have_text(re.compile(r"3\s+payroll"))
    async with page.expect_download() as download:
        await window.dialog.get_by_role("button", name="Export first").click()
    exported = (await (await download.value).path()).read_text().splitlines()
    assert [json.loads(line)["client_id"] for line in exported] == ["payroll"] * 3
    await expect(window.dialog).to_contain_text("Saved as dead-letters-")
    await service.sign_out(running, "payroll", 2)  # while the dialog is open
    await running.until_metric(5.0, "dead_letters_total")
    delete = window.dialog.get_by_role("button", name="Delete 3 dead letters")
    await expect(delete).to_be_disabled()
    await window.dialog.locator("input[inputmode=numeric]").fill("5")
    await expect(delete).to_be_disabled()
    await window.dialog.locator("input[inputmode=numeric]").fill("3")
    await delete.click()
    await expect(window.dialog).to_contain_text("3 dead letters discarded.")
    await expect(page.locator("main tbody tr")).to_have_count(2)  # without being asked
    await page.keyboard.press("Escape")
    await window.go("acts")
    await expect(window.row("jq -c")).to_have_count(2)  # the export and the discard, and not each of its messages
    discard = window.row("dead letters discarded")
    await discard.locator("summary", has_text="3 messages").click()
    await expect(discard.locator("li", has_text="payroll")).to_have_count(3)
    await expect(page.locator('nav a[href="#/dead"] .badge')).to_have_text("2")
    await window.go("waiting")
    await expect(page.get_by_role("button", name="Cancel these")).to_have_count(0)  # all of it is not offered
    await window.go(f"waiting?client_id=legacy&iss={ISSUER}")
    await page.get_by_role("button", name="Cancel these 2 …").click()
    await window.dialog.locator("input[inputmode=numeric]").fill("2")
    await window.dialog.get_by_role("button", name="Cancel 2 deliveries").click()
    await expect(window.dialog).to_contain_text("2 deliveries cancelled.")
