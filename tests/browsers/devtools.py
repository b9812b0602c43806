"""A Chromium that a test drives, by the DevTools protocol.

It is started here and not by a test library, since their launches switch off parts of what is tested: the partitioning
of storage, the back/forward cache. It knows the names of a test's sites, trusts the test's keys, and nothing else.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.apt_programs import program

PATIENCE = 60.0  # seconds for the browser to start, or to answer; it takes one on a quiet machine
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip


class PageError(Exception):
    """A script of the test failed in the browser."""


class _DevTools:
    """One connection to the browser, for all its pages."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: dict[tuple[str, str], list[asyncio.Future[dict[str, Any]]]] = {}

    async def read(self) -> None:
        """Take what the browser says, until it ends."""
        async for frame in self._socket:
            got = json.loads(frame.data)
            if "id" in got:
                if not (future := self._answers.pop(got["id"])).done():
                    future.set_result(got)
                continue
            for event in self._events.pop((got.get("sessionId", ""), got["method"]), []):
                if not event.done():
                    event.set_result(got["params"])
        for future in (*self._answers.values(), *itertools.chain(*self._events.values())):
            if not future.done():
                future.set_exception(PageError("the browser has ended"))

    def event(self, session: str, method: str) -> asyncio.Future[dict[str, Any]]:
        """The next event of this kind."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._events.setdefault((session, method), []).append(future)
        return future

    async def send(self, method: str, session: str = "", **params: object) -> dict[str, Any]:
        """Ask for something. Raises PageError if the browser refuses."""
        number = next(self._ids)
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        message: dict[str, object] = {"id": number, "method": method, "params": params}
        await self._socket.send_json(message | ({"sessionId": session} if session else {}))
        async with asyncio.timeout(PATIENCE):
            got = await future
        if "error" in got:
            raise PageError(f"{method}: {got['error']['message']}")
        result: dict[str, Any] = got["result"]
        return result


class BrowserPage:
    """One tab."""

    def __init__(self, tools: _DevTools, session: str, target: str) -> None:
        self._tools = tools
        self._session = session
        self._target = target

    async def send(self, method: str, **params: object) -> dict[str, Any]:
        """Ask for something of the protocol, of this tab."""
        return await self._tools.send(method, self._session, **params)

    async def goto(self, url: str) -> None:
        """Open an address, and wait until all of it is loaded."""
        loaded = self._tools.event(self._session, "Page.loadEventFired")
        got = await self.send("Page.navigate", url=url)
        if "errorText" in got:
            raise PageError(f"{url}: {got['errorText']}")
        async with asyncio.timeout(PATIENCE):
            await loaded

    async def eval(self, script: str) -> Any:
        """The value of an expression; of a promise, what it becomes. JSON."""
        got = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=False
        )
        if "exceptionDetails" in got:
            details = got["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return got["result"].get("value")

    async def until(self, condition: str, within: float = 30.0) -> Any:
        """Wait until an expression is true, looking 20 times a second. Its value."""
        value = await self.eval(
            f"new Promise((done) => {{ const end = performance.now() + {within * 1000};"
            f" const look = () => {{ const v = ({condition}); if (v || performance.now() > end) done(v);"
            " else setTimeout(look, 50) }; look() })"
        )
        if not value:
            raise PageError(f"not within {within} s: {condition}; the page says: {(await self.text())[:2000]}")
        return value

    async def text(self) -> str:
        """What is read on the page."""
        return str(await self.eval("document.body ? document.body.innerText : ''"))

    async def screenshot(self, picture: Path, width: int = 1120, height: int = 1000) -> None:
        """What is seen of it, as PNG."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        got = await self.send("Page.captureScreenshot", captureBeyondViewport=False)
        await asyncio.to_thread(picture.write_bytes, base64.b64decode(got["data"]))

    async def close(self) -> None:
        """Close the tab."""
        await self._tools.send("Target.closeTarget", targetId=self._target)


class DrivenChromium:
    """The running browser."""

    def __init__(self, tools: _DevTools) -> None:
        self._tools = tools

    async def page(self, *, apart: bool = False) -> BrowserPage:
        """A new tab, in the one profile. `apart`: with cookies of its own, as a private window has."""
        context = (await self._tools.send("Target.createBrowserContext")) if apart else {}
        target = (await self._tools.send("Target.createTarget", url="about:blank", **context))["targetId"]
        session = (await self._tools.send("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = BrowserPage(self._tools, session, target)
        await page.send("Page.enable")
        return page


@asynccontextmanager
async def driven_chromium(
    *,
    hosts: Mapping[str, str] | None = None,
    keys: Iterable[str] = (),
    third_party_cookies: bool = True,
    arguments: Iterable[str] = (),
) -> AsyncIterator[DrivenChromium]:
    """A browser with a new profile, while entered.

    `hosts`: the addresses of names, such as {"*.test": "127.0.0.1"}. `keys`: the SHA-256 of public keys, in base64, to
    trust. Debian's Chromium blocks third-party cookies unless told otherwise. Raises ProgramMissing.
    """
    chromium = program("chromium", "chromium")
    with tempfile.TemporaryDirectory(prefix="chromium.", ignore_cleanup_errors=True) as home:
        _make_profile(Path(home, "profile"), third_party_cookies=third_party_cookies)
        rules = ",".join(f"MAP {name} {address}" for name, address in (hosts or {}).items())
        command = [chromium, *_QUIET, f"--user-data-dir={home}/profile", *arguments]
        command += [f"--host-resolver-rules={rules}"] if rules else []
        trusted = ",".join(keys)
        command += [f"--ignore-certificate-errors-spki-list={trusted}"] if trusted else []
        process = await asyncio.create_subprocess_exec(
            *command,
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HOME": home},
        )
        try:
            async with _connected(process) as tools:
                yield DrivenChromium(tools)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await process.wait()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _make_profile(folder: Path, *, third_party_cookies: bool) -> None:
    (folder / "Default").mkdir(parents=True)
    cookies = {"cookie_controls_mode": int(not third_party_cookies)}  # as chrome://settings/cookies sets it
    (folder / "Default" / "Preferences").write_text(json.dumps({"profile": cookies}))


@asynccontextmanager
async def _connected(process: asyncio.subprocess.Process) -> AsyncIterator[_DevTools]:
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(PATIENCE):
        while not (found := re.search(rb"ws://\S+", said)):
            line = await process.stderr.readline()
            assert line, f"Chromium did not start: {said[-2000:].decode(errors='replace')}"
            said += line
    drained = asyncio.create_task(process.stderr.read())  # a full pipe would hold the browser
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(found[0].decode(), max_msg_size=0) as socket,
    ):
        tools = _DevTools(socket)
        reading = asyncio.create_task(tools.read())
        try:
            yield tools
        finally:
            for task in (reading, drained):
                task.cancel()
            await asyncio.gather(reading, drained, return_exceptions=True)
