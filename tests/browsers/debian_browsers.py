"""Debian's own Chromium and Firefox, driven by Playwright: each starts once for the whole run, when first asked for.

Chromium gets our switches alone, since Playwright's turn off parts of what is tested: the partitioning of storage, the
back/forward cache. It knows the names of the tests' sites and trusts their key, and nothing else. Firefox has its own
defaults, by WebDriver BiDi, whose agent would change preferences that matter here; it trusts any certificate.
"""

import json
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Playwright
from playwright.async_api import Error as PlaywrightError

from tests.support.apt_programs import program
from tests.system.waiting import until as until_result

KINDS = ("chromium", "firefox")
PATIENCE = 60.0  # seconds for the browser to start, to answer, or to show what is waited for
_SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-startup-window",
    "--remote-debugging-pipe", "--host-resolver-rules=MAP *.test 127.0.0.1",
)  # fmt: skip
_AWAY = "http://127.0.0.1:1/"  # instead of Mozilla's servers
_PREFERENCES: dict[str, str | float | bool] = {
    "remote.prefs.recommended": False,
    "network.dns.forceResolve": "127.0.0.1",
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.region.network.url": _AWAY,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.user_activation.transient.timeout": 1,  # ms: a script of Playwright counts as a click, which lets pages ask
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": _AWAY,
}


class Browsers:
    """Those of this run. `key`: the SHA-256 of the sites' public key, in base64."""

    def __init__(self, playwright: Playwright, stack: AsyncExitStack, key: str) -> None:
        self._playwright = playwright
        self._stack = stack
        self._key = key
        self._started: dict[tuple[str, bool], Browser] = {}

    async def context(self, kind: str, *, third_party_cookies: bool, **looks: Any) -> BrowserContext:
        """Open a context with its own cookies, like a private window. `looks`: size, colours. Raises ProgramMissing."""
        if (browser := self._started.get((kind, third_party_cookies))) is None:
            start = self._chromium if kind == "chromium" else self._firefox
            browser = self._started[kind, third_party_cookies] = await start(third_party_cookies)
            self._stack.push_async_callback(browser.close)
        context = await browser.new_context(ignore_https_errors=kind == "firefox", **looks)
        context.set_default_timeout(PATIENCE * 1000)
        return context

    async def _chromium(self, third_party_cookies: bool) -> Browser:
        """Start Debian's Firefox, which blocks cookies of other sites unless its profile allows them."""
        home = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="chromium.", ignore_cleanup_errors=True))
        _write_profile(Path(home, "Default"), third_party_cookies)
        trusted = f"--ignore-certificate-errors-spki-list={self._key}"
        return await self._playwright.chromium.launch(
            executable_path=program("chromium", "chromium"),
            ignore_default_args=True,
            args=[*_SWITCHES, trusted, f"--user-data-dir={home}"],
            env={"HOME": home},
            timeout=PATIENCE * 1000,
        )

    async def _firefox(self, third_party_cookies: bool) -> Browser:
        """It hides the cookies of other sites by default."""
        home = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="firefox.", ignore_cleanup_errors=True))
        cookies = {"network.cookie.cookieBehavior": 0} if third_party_cookies else {}
        return await self._playwright.firefox.launch(
            channel="moz-firefox",  # the one as Mozilla makes it, in place of Playwright's own
            executable_path=program("firefox-esr", "firefox-esr"),
            firefox_user_prefs={**_PREFERENCES, **cookies},
            env={"HOME": home},
            timeout=PATIENCE * 1000,
        )


def share_one_loop(items: list[pytest.Item], folder: Path) -> None:
    """Run the folder's tests in one event loop, since a browser belongs to the loop that started it.

    They may take minutes: the first on a machine installs the browser.
    """
    for item in items:
        if item.path.is_relative_to(folder):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(600))


def _write_profile(folder: Path, third_party_cookies: bool) -> None:
    """As chrome://settings/cookies does."""
    folder.mkdir()
    cookies = {"cookie_controls_mode": int(not third_party_cookies)}
    (folder / "Preferences").write_text(json.dumps({"profile": cookies}))


async def until(page: Page, condition: str) -> Any:
    """Wait until an expression is true, also while the page goes from one address to the next. Its value.

    Asked again and again from here: Playwright's own wait is by `eval`, which a page's policy may forbid.
    """

    async def look() -> Any:
        with suppress(PlaywrightError):
            return await page.evaluate(condition)

    try:
        return await until_result(look, bool, PATIENCE)
    except AssertionError as error:
        shown = await page.evaluate("document.body?.innerText")
        error.add_note(f"waited for {condition}; {page.url} shows: {str(shown)[:2000]}")
        raise


async def text(page: Page) -> str:
    """What is read on the page."""
    return await page.inner_text("body")
