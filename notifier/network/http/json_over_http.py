"""Fetches JSON over HTTP within the time of one reading: clients of registry sources, and sessions.

It is used in a thread with a separate event loop, for one reading at a time. No egress policy applies: the operator
chose the address.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from notifier.model.defaults import MAX_LIST_BYTES
from notifier.model.errors import AnswerFault, SourceFault
from notifier.model.shared_resources import shared_bound
from notifier.network.http.json_client import BeyondBounds, JsonAnswer, JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.settings.policies import TlsSettings

LIST_BOUNDS = Bounds(answer=MAX_LIST_BYTES)  # of one response of a registry source
_MAX_KEPT_CONNECTIONS = shared_bound(8)  # more than any source requests at a time


class JsonWeb:
    """Sends requests to one server. Raises SourceFault for any failure before there is a response."""

    def __init__(self, client: JsonClient, until: float) -> None:
        self._client = client
        self._until = until

    def left(self) -> float:
        """Return the seconds until the time limit of the reading."""
        return self._until - asyncio.get_running_loop().time()

    async def ask(self, method: str, url: str, headers: Mapping[str, str] | None = None, **sent: Any) -> JsonAnswer:
        """Send a request, with `json` or a form as `data`."""
        try:
            return await self._client.ask(method, url, headers, **sent)
        except BeyondBounds as fault:
            raise AnswerFault(f"{redact_url(url)}: {fault}") from None
        except NoAnswer as fault:
            raise SourceFault(f"{redact_url(url)}: {fault}") from None


@asynccontextmanager
async def open_web(tls: TlsSettings | None, within: float, bounds: Bounds = LIST_BOUNDS) -> AsyncIterator[JsonWeb]:
    """Open connections for one reading, which ends after `within` seconds. Raises SourceFault."""
    client = JsonClient(bounds, (tls or TlsSettings()).files(), keep=_MAX_KEPT_CONNECTIONS)
    try:
        async with asyncio.timeout(within):
            yield JsonWeb(client, asyncio.get_running_loop().time() + within)
    except TimeoutError:
        raise SourceFault(f"not read within {within:g} s (the source's `timeout`)") from None
    finally:
        await client.close()


def redact_url(url: str) -> str:
    """Return the URL with scheme, host, port and path only: user and query may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
