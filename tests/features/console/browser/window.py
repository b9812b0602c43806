"""A window on the console: the actions of a user, and the events that must never happen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Locator, Page, expect

from tests.browsers.debian_browsers import Browsers

PAGES = ("overview", "clients", "dead", "waiting", "find", "live", "keys", "pauses", "doctor", "acts")
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
EXPECTED = ("400", "401", "403", "404", "503", "ERR_CONNECTION", "NS_ERROR", "NetworkError")
"""Messages that browsers write into their console by themselves: a failed or missing answer of the API."""


class Window:
    """One page of a browser. `wrong`: what should not have happened; `attacked`, if a test does such things itself.

    `elsewhere`: where it may go beside the console.
    """

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.elsewhere: tuple[str, ...] = ()
        self.wrong: list[str] = []
        self.attacked = False
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self._is_ours(request.url))
        page.on("console", lambda message: self._messages(message.type, message.text))

    def _is_ours(self, url: str) -> None:
        if not url.startswith((self.base, *self.elsewhere)):
            self.wrong.append(f"request: {url}")

    def _messages(self, kind: str, text: str) -> None:
        if kind == "error" and not any(words in text for words in EXPECTED):
            self.wrong.append(f"console: {text}")

    # ── actions of a user ──

    async def open(self, place: str = "") -> None:
        """Open the console again."""
        await self.page.goto(f"{self.base}/console/{place}")

    async def sign_in(self, token: str) -> None:
        """Type a token, and wait until the page shows the state of the service."""
        await self.open()
        await self.page.fill("#token", token)
        await self.page.press("#token", "Enter")
        await expect(self.page.locator(".pulse.good")).to_be_visible()

    async def go(self, place: str) -> None:
        """Go to a page, and wait until its content is shown."""
        name = place.split("?", maxsplit=1)[0]
        await self.page.evaluate("place => { location.hash = `#/${place}` }", place)
        await expect(self.page.locator(f'nav a[href="#/{"clients" if name == "client" else name}"]')).to_have_attribute(
            "aria-current", "page"
        )
        await expect(self.page.locator("main > [role=status]")).to_have_count(0)

    def row(self, words: str) -> Locator:
        """The rows of tables that have these words."""
        return self.page.locator("main tbody tr", has_text=words)

    @property
    def dialog(self) -> Locator:
        """What is open above the page."""
        return self.page.locator("dialog[open]")

    async def focused(self) -> str:
        """Return the text, or the kind, of the focused element."""
        return str(
            await self.page.evaluate("(document.activeElement.textContent || document.activeElement.tagName).trim()")
        )

    # ── what must never happen ──

    async def is_clean(self) -> None:
        """Check that no policy was violated, no other server requested, no script injected, and no data stored."""
        assert self.wrong == [], self.wrong
        seen = {
            "violations": await self.page.evaluate("window.violations"),
            "cookies": await self.page.context.cookies(),
            "kept": await self.page.evaluate("Object.keys(localStorage).filter((key) => key !== 'notifier.theme')"),
            "links": await self.page.evaluate("[...document.links].map((a) => a.getAttribute('href'))"),
        }
        seen["links"] = [link for link in seen["links"] if not link.startswith("#")]
        assert not any(seen.values()), seen


@asynccontextmanager
async def window(browsers: Browsers, kind: str, base: str, **looks: Any) -> AsyncIterator[Window]:
    """A private window, which is clean at the end. `looks`: size, colours."""
    context = await browsers.context(kind, third_party_cookies=True, **looks)
    try:
        await context.add_init_script(WATCH)
        opened = Window(await context.new_page(), base)
        yield opened
        if not opened.attacked:
            await opened.is_clean()
    finally:
        await context.close()
