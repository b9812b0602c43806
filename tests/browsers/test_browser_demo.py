"""`notifier demo --browser`, driven as somebody does who tries it: sign in, sign out, and all three have heard."""

import io
from pathlib import Path

from rich.console import Console

from notifier.demo.browser_demo import browser_demo, show_in_browser
from tests.browsers.devtools import BrowserPage, DrivenChromium, driven_chromium

WIDE, HIGH = 1120, 980


async def shown(browser: DrivenChromium, page: BrowserPage, client: str, words: str) -> None:
    """Whether the client's own page says so, opened anew."""
    own = await browser.page()
    await own.goto(await page.eval(f"told.clients.{client}"))
    await own.until(f"document.body.innerText.startsWith('{words}')")
    await own.close()


async def click_at_the_company(page: BrowserPage) -> None:
    """As a hand does: no script reaches into the frame of another origin. Its button is at the right."""
    await page.until("byId('company').contentDocument === null")  # the page is the other origin's
    place = "(({ right, top }) => ({ x: right - 60, y: top + 20 }))(byId('company').getBoundingClientRect())"
    await page.eval("byId('company').scrollIntoView()")
    at = await page.eval(place)
    for kind in ("mousePressed", "mouseReleased"):
        await page.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)


async def test_a_sign_out_reaches_all_three(tmp_path: Path) -> None:
    """By back-channel, front-channel and check-session, each told apart; and again after another sign-in."""
    async with browser_demo() as (url, _), driven_chromium() as browser:
        page = await browser.page()
        await page.goto(url)
        for _ in range(2):
            await page.eval("byId('in').click()")
            await page.until("byId('who').textContent === 'Alice is signed in.'")
            await page.until("byId('log').textContent.includes('heard: unchanged')")
            for client in ("shop", "photos"):
                await shown(browser, page, client, "signed in")
            await page.eval("byId('out').click()")
            for words in ("Shop got a signed logout token", "Photos answered the browser", "heard: changed"):
                await page.until(f"byId('log').textContent.includes('{words}')")
            await page.until("byId('who').textContent === 'Nobody is signed in.'")
            for client in ("shop", "photos"):
                await shown(browser, page, client, "signed out")
        await page.screenshot(tmp_path / "demo-browser.png", WIDE, HIGH)


async def test_a_sign_out_at_the_upstream_reaches_all_three(tmp_path: Path) -> None:
    """By a logout token from server to server, and by a page two frames deep. The identity server hears of it too."""
    async with browser_demo() as (url, _), driven_chromium() as browser:
        page = await browser.page()
        await page.goto(url)
        await page.eval("byId('in').click()")
        await page.until("byId('log').textContent.includes('heard: unchanged')")
        for client in ("shop", "photos"):
            await shown(browser, page, client, "signed in")
        await click_at_the_company(page)
        for words in ("notifier took the token", "Shop got a signed logout token", "Identity server got a signed"):
            await page.until(f"byId('log').textContent.includes('{words}')")
        await page.until("byId('who').textContent === 'Nobody is signed in.'")
        for words in ("Photos answered the browser", "heard: changed"):
            await page.until(f"byId('log').textContent.includes('{words}')")
        for client in ("shop", "photos"):
            await shown(browser, page, client, "signed out")
        await page.eval("scrollTo(0, 0)")
        await page.screenshot(tmp_path / "demo-upstream.png", WIDE, HIGH)  # docs has one


async def test_the_demo_ends_when_nobody_is_there() -> None:
    """And has said where it was."""
    opened: list[str] = []
    said = io.StringIO()
    await show_in_browser(Console(file=said, width=100), opened.append, idle=0.2)
    assert opened[0].startswith("http://localhost:")
    assert f"Open {opened[0]} in a browser" in said.getvalue()
