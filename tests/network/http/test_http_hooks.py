"""An aiohttp that is inside another than the versions tried is refused, before anything is sent by it."""

from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from notifier.model.errors import ConfigurationError
from notifier.network.http.aiohttp_hooks import TRIED, demand_aiohttp
from notifier.network.http.transport import HttpTransport
from tests.network.http.http_requests import request
from tests.support.receivers import scripted


@pytest.fixture(autouse=True)
def first_look() -> Iterator[None]:
    """Nothing was looked at so far, and nothing of this is remembered."""
    demand_aiohttp.cache_clear()
    yield
    demand_aiohttp.cache_clear()


def test_the_version_that_is_shipped_fits() -> None:
    """Here, without a loop."""
    demand_aiohttp()


async def test_another_inside_is_refused(transport: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connector that is asked in another way. It is said what is installed and what to install; nothing is sent."""
    original = aiohttp.BaseConnector.connect

    async def connect(self: aiohttp.BaseConnector, *words: Any, **more: Any) -> Any:
        return await original(self, *words, **more)

    monkeypatch.setattr(aiohttp.BaseConnector, "connect", connect)
    async with scripted() as receiver:
        with pytest.raises(ConfigurationError, match=rf"^aiohttp: {aiohttp.__version__} differs .* install {TRIED} \("):
            await transport.post(request(receiver.url))
        assert receiver.connections == 0
