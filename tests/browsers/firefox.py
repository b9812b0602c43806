"""A Firefox that a test drives, by WebDriver BiDi, with its own defaults: it hides the cookies of other sites.

Its remote agent would change preferences that matter here, so that is switched off.
"""

import asyncio
import itertools
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.apt_programs import program
from tests.browsers.devtools import PATIENCE, BrowserPage, PageError

_AWAY = "http://127.0.0.1:1/"  # instead of Mozilla's servers
_PREFERENCES: dict[str, object] = {
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
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": _AWAY,
}


class DrivenFirefox:
    """The running browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def read(self) -> None:
        """Take what the browser says, until it ends."""
        async for frame in self._socket:
            got = json.loads(frame.data)
            future = self._answers.pop(got.get("id", 0), None)
            if future is not None and not future.done():
                future.set_result(got)

    async def send(self, method: str, **params: object) -> dict[str, Any]:
        """Ask for something of the protocol. Raises PageError if the browser refuses."""
        number = next(self._ids)
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE):
            got = await future
        if got["type"] == "error":
            raise PageError(f"{method}: {got['error']}: {got['message']}")
        result: dict[str, Any] = got["result"]
        return result

    async def page(self) -> BrowserPage:
        """A new tab."""
        return _FirefoxPage(self, (await self.send("browsingContext.create", type="tab"))["context"])


class _FirefoxPage(BrowserPage):
    def __init__(self, browser: DrivenFirefox, context: str) -> None:
        self._browser = browser
        self._context = context

    async def goto(self, url: str) -> None:
        try:
            await self._browser.send("browsingContext.navigate", context=self._context, url=url, wait="complete")
        except PageError as error:
            if "Address rejected" not in str(error):  # which says that a frame may not be shown
                raise
            await self.until("document.readyState == 'complete'")

    async def eval(self, script: str) -> Any:
        got = await self._browser.send(
            "script.evaluate",
            expression=f"(async () => JSON.stringify((await ({script})) ?? null))()",
            target={"context": self._context},
            awaitPromise=True,
        )
        if got["type"] == "exception":
            raise PageError(got["exceptionDetails"]["text"])
        return json.loads(got["result"]["value"])

    async def close(self) -> None:
        await self._browser.send("browsingContext.close", context=self._context)


@asynccontextmanager
async def driven_firefox(*, third_party_cookies: bool = False) -> AsyncIterator[DrivenFirefox]:
    """A browser with a new profile, while entered. All names lead to this machine, and any certificate is trusted.

    Raises ProgramMissing.
    """
    firefox = program("firefox-esr", "firefox-esr")
    with tempfile.TemporaryDirectory(prefix="firefox.", ignore_cleanup_errors=True) as home:
        profile = _make_profile(home, {"network.cookie.cookieBehavior": 0} if third_party_cookies else {})
        process = await asyncio.create_subprocess_exec(
            firefox, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HOME": home, "MOZ_CRASHREPORTER_DISABLE": "1"},
        )  # fmt: skip
        try:
            async with _connected(process) as browser:
                yield browser
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def _make_profile(home: str, more: dict[str, object]) -> str:
    folder = Path(home, "profile")
    folder.mkdir()
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(each)});" for name, each in (_PREFERENCES | more).items())
    (folder / "user.js").write_text("\n".join(lines))
    return str(folder)


@asynccontextmanager
async def _connected(process: asyncio.subprocess.Process) -> AsyncIterator[DrivenFirefox]:
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(PATIENCE):
        while not (found := re.search(rb"ws://\S+", said)):
            line = await process.stderr.readline()
            assert line, f"Firefox did not start: {said[-2000:].decode(errors='replace')}"
            said += line
    drained = asyncio.create_task(process.stderr.read())  # a full pipe would hold the browser
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{found[0].decode()}/session", max_msg_size=0) as socket,
    ):
        browser = DrivenFirefox(socket)
        reading = asyncio.create_task(browser.read())
        try:
            await browser.send("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
            yield browser
        finally:
            for task in (reading, drained):
                task.cancel()
            await asyncio.gather(reading, drained, return_exceptions=True)
