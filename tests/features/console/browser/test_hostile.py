"""Text of others is text: whatever a client is called or answers, nothing runs, nothing loads, nothing is a link."""

from urllib.parse import quote, urlencode

import yaml
from playwright.async_api import Page, expect

from tests.features.console.browser.conftest import SRE, NewWindow, Service
from tests.features.console.browser.window import PAGES
from tests.system.site import ISSUER, client
from tests.system.worker_process import WorkerProcess

MARKUP = "<img src=x onerror=run()><script>run()</script>\"'><svg onload=run()>"
HIDDEN = "txt\u202eexe\u200b"
HOSTILE = (
    f"crm{MARKUP}",
    HIDDEN,
    "..",
    "../../v1/dead-letters?all=true#",
    "a,b=c d%2F#?&+é漢字 __proto__",
    "constructor",
    "javascript:run()",
)
ADDRESSES = (
    "#/live?q=%3Cimg%20src%3Dx%20onerror%3Drun()%3E",
    "#/find?event_id=%3Cscript%3Erun()%3C%2Fscript%3E",
    "#/clients?order=%27%3E%3Cscript%3E",
    "#/constructor",
    "#/__proto__?x=1",
    "#/dead?reason=%3Cb%3E&since=javascript:run()",
    "#/waiting?skip=-1",
    "#/client?client_id=%3Cscript%3E&iss=javascript:run()",
)
MADE_OF_TEXT = "document.querySelectorAll('#app script, #app iframe, #app [onerror], #app [onload], img[src=x]').length"


async def test_hostile_text_is_shown_and_nothing_else(service: Service, new_window: NewWindow) -> None:
    """On every page, in dialogs, and in addresses. What would reorder text is shown as its code."""
    service.answer("hostile", 404, f"{MARKUP}{HIDDEN}")
    uri = f"{service.clients.url('hostile')}?x={quote(MARKUP)}"
    rows = [{**client(name, uri), "client_name": f"{MARKUP}{HIDDEN}"} for name in HOSTILE]
    service.site.write_clients(rows)
    async with service.worker() as running:
        window = await new_window(running)
        page = window.page
        await window.sign_in(SRE)
        for name in HOSTILE:
            await service.sign_out(running, name)
        await running.until_metric(float(len(HOSTILE)), "dead_letters_total")
        for name in PAGES:
            await window.go(name)
            await nothing_is_made_of_text(page)
        await window.go("clients")
        await expect(window.row("U+202E").first).to_be_visible()
        for name in HOSTILE:
            await window.go(f"client?{urlencode({'iss': ISSUER, 'client_id': name})}")
            await expect(page.locator(".band.big")).to_contain_text("Its last attempts failed")
            await nothing_is_made_of_text(page)
            await page.get_by_text("Pause it").click()
            [lines] = yaml.safe_load(await page.locator("details pre").inner_text())
            assert lines == {"client_id": name, "issuer": ISSUER, "notifier": {"paused": True}}
            await page.get_by_role("button", name="Resolved …").click()
            await expect(window.dialog).to_contain_text("1 dead letter is replayed: refused 1.")
            await nothing_is_made_of_text(page)
            await page.keyboard.press("Escape")
        await window.go("dead")
        await window.row("U+202E").get_by_role("button", name="Show").click()
        await window.dialog.get_by_role("button", name="Show content").click()
        await expect(window.dialog.locator("pre")).to_contain_text("U+202E")
        await nothing_is_made_of_text(page)
        await page.keyboard.press("Escape")
        for address in ADDRESSES:
            await page.evaluate("address => { location.hash = address }", address)
            await expect(page.locator("main > [role=status]")).to_have_count(0)
            await nothing_is_made_of_text(page)


async def test_the_policy_holds(running: WorkerProcess, new_window: NewWindow) -> None:
    """A script that found its way into the page all the same could neither run more, make markup nor send anything."""
    window = await new_window(running)
    window.attacked = True
    page = window.page
    await window.sign_in(SRE)
    tried = {
        "inline": "const s = document.createElement('script'); s.text = 'window.ran = 1'; document.head.append(s)",
        "markup": "document.createElement('div').innerHTML = '<b>x</b>'",
        "style": "document.body.setAttribute('style', 'color: red')",
        "other": "await fetch('http://127.0.0.1:1/')",
        "frame": "document.body.append(Object.assign(document.createElement('iframe'), { src: '/console/' }))",
    }
    for script in tried.values():
        await page.evaluate(f"(async () => {{ try {{ {script} }} catch {{}} }})()")
    assert await page.evaluate("window.ran") is None
    violated = await page.evaluate("window.violations.map((each) => each.split(' ')[0])")
    refused = {"require-trusted-types-for", "style-src-attr", "connect-src", "frame-src"}
    assert refused <= set(violated), violated


async def nothing_is_made_of_text(page: Page) -> None:
    """No element came of text."""
    assert await page.evaluate(MADE_OF_TEXT) == 0
