"""Test an aiohttp with other internals: requests fall back to its session, and no connection is used unwatched."""

from collections.abc import Iterator

import aiohttp
import pytest

from notifier.model.errors import ConfigurationError
from notifier.model.outcome import HttpResponse, Reason, StaleConnection
from notifier.model.record import copy_record
from notifier.network.http.aiohttp_hooks import TRIED_VERSIONS, examine_aiohttp
from notifier.network.http.transport import HttpTransport
from tests.network.http.http_requests import broken, opened, request
from tests.support import behaviours as do
from tests.support.library_changes import connecting, watching
from tests.support.receivers import scripted


@pytest.fixture(autouse=True)
def first_look() -> Iterator[None]:
    """Reset the cached result of the examination."""
    examine_aiohttp.cache_clear()
    yield
    examine_aiohttp.cache_clear()


def test_installed_aiohttp_is_supported() -> None:
    """Checked without a loop."""
    assert examine_aiohttp()["requests"].difference is None


async def test_without_the_hook_the_session_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is answered, and the hook reports the installed and the supported versions."""
    connecting(monkeypatch.setattr)
    hook = examine_aiohttp()["requests"]
    assert hook.reason.startswith(f"aiohttp {aiohttp.__version__} has other internals than {TRIED_VERSIONS} (")
    async with scripted() as receiver, opened() as transport:
        assert isinstance(await transport.post(request(receiver.url)), HttpResponse)
        assert receiver.connections == 1


@pytest.mark.parametrize("hook", ["on", "off"])
@pytest.mark.parametrize("status", [b"000", b"099"])
async def test_status_below_100_is_not_an_answer(hook: str, status: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both modes: it is not HTTP, so the delivery is retried, and the connection is not used again."""
    if hook == "off":
        connecting(monkeypatch.setattr)
    line = do.raw(b"HTTP/1.1 %b Low\r\nContent-Length: 0\r\n\r\n" % status)
    async with scripted(line, do.answer(200)) as receiver, opened() as transport:
        assert (examine_aiohttp()["requests"].difference is None) == (hook == "on")
        wire = await transport.post(request(receiver.url, within=2))
        assert (*broken(wire), wire.text) == (Reason.DISCONNECTED, True, "the answer is not HTTP/1.1")  # type: ignore[union-attr]
        assert await transport.post(request(receiver.url)) == HttpResponse(status=200)
        assert receiver.connections == 2


@pytest.mark.parametrize("hook", ["on", "off"])
async def test_a_get_is_sent_once(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if its connection breaks, new or kept."""
    if hook == "off":
        connecting(monkeypatch.setattr)
    async with scripted(do.reset(), do.close(), do.answer(200), do.close()) as receiver, opened() as transport:
        get = copy_record(request(receiver.url), body=None)
        reset, closed, answered, stale = [await transport.post(get) for _ in range(4)]
        assert (broken(reset), broken(closed)) == ((Reason.DISCONNECTED, True),) * 2
        assert (answered, stale) == (HttpResponse(status=200), StaleConnection())
        assert len(receiver.requests) == 4


async def test_connections_that_cannot_be_watched_are_refused(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the installed version and the supported versions; nothing is sent."""
    watching(monkeypatch.setattr)
    examine_aiohttp.cache_clear()
    async with scripted() as receiver:
        wanted = rf"^aiohttp: {aiohttp.__version__} has other internals .* install one of {TRIED_VERSIONS} \("
        with pytest.raises(ConfigurationError, match=wanted):
            await transport.post(request(receiver.url))
        assert receiver.connections == 0
