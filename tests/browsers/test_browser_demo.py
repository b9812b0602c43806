"""`notifier demo --browser`, driven as somebody does who tries it: sign in, sign out, and all three have heard."""

import io
from pathlib import Path

from playwright.async_api import Page, expect
from rich.console import Console

from notifier.demo.browser_demo import browser_demo, show_in_browser
from tests.browsers.conftest import NewPage


async def clients_say(page: Page, words: str) -> None:
    """What the clients' own pages show."""
    for client in ("shop", "photos"):
        await expect(page.frame_locator(f"#{client}").locator("#state")).to_have_text(words)


async def log_says(page: Page, *happenings: str) -> None:
    for words in happenings:
        await expect(page.locator("#log")).to_contain_text(words)


async def sign_in(page: Page) -> None:
    await page.get_by_role("button", name="Sign in as Alice").click()
    await expect(page.locator("#who")).to_have_text("Alice is signed in.")
    await log_says(page, "heard: unchanged")
    await clients_say(page, "signed in")


async def test_a_sign_out_reaches_all_three(new_page: NewPage, tmp_path: Path) -> None:
    """By back-channel, front-channel and check-session, each told apart; and again after another sign-in."""
    page = await new_page()
    await page.set_viewport_size({"width": 1120, "height": 980})
    async with browser_demo() as (url, _):
        await page.goto(url)
        for _ in range(2):
            await sign_in(page)
            await page.get_by_role("button", name="Sign out").click()
            await log_says(page, "Shop got a signed logout token", "Photos answered the browser", "heard: changed")
            await expect(page.locator("#who")).to_have_text("Nobody is signed in.")
            await clients_say(page, "signed out")
        await page.screenshot(path=tmp_path / "demo-browser.png")  # docs has it


async def test_a_sign_out_at_the_upstream_reaches_all_three(new_page: NewPage) -> None:
    """By a logout token from server to server, and by a page two frames deep. The identity server hears of it too."""
    page = await new_page()
    async with browser_demo() as (url, _):
        await page.goto(url)
        await sign_in(page)
        await page.frame_locator("#company").get_by_role("button").click()
        await log_says(
            page, "notifier took the token", "Shop got a signed logout token", "Identity server got a signed"
        )
        await expect(page.locator("#who")).to_have_text("Nobody is signed in.")
        await log_says(page, "Photos answered the browser", "heard: changed")
        await clients_say(page, "signed out")


async def test_the_demo_ends_when_nobody_is_there() -> None:
    """And has said where it was."""
    opened: list[str] = []
    said = io.StringIO()
    await show_in_browser(Console(file=said, width=100), opened.append, idle=0.2)
    assert opened[0].startswith("http://localhost:")
    assert f"Open {opened[0]} in a browser" in said.getvalue()
