"""What every Python peer does with an event: mint a logout token for each of its clients, and POST them all at once.

The libraries, the loaded key and the session are those of `ceiling.py`: nothing here is slower than it need be, so that
what a peer costs beyond the ceiling is its framework's own. It runs in an environment without notifier.
"""

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import aiohttp
import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from yarl import URL

SETTINGS: Mapping[str, Any] = json.loads(Path(os.environ["PEER_SETTINGS"]).read_text())
AMQP: str = SETTINGS["amqp"]
QUEUE: str = SETTINGS["queue"]
EVENTS_AT_ONCE: int = SETTINGS["events_at_once"]
TYPE = {"Content-Type": "application/x-www-form-urlencoded"}
PURPOSE = {"http://schemas.openid.net/event/backchannel-logout": {}}


class Teller:
    """One session and one loaded key. Made within the event loop."""

    def __init__(self) -> None:
        # Any: PyJWT names the kinds of key, of which this is one by its settings
        self._key: Any = load_pem_private_key(Path(SETTINGS["key"]).read_bytes(), None)
        self._headers = {"typ": "logout+jwt", "kid": SETTINGS["kid"]}
        self._urls = {client: URL(url) for client, url in SETTINGS["clients"].items()}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers=TYPE, cookie_jar=aiohttp.DummyCookieJar()
        )

    async def tell(self, event: Mapping[str, Any]) -> None:
        """All of the event's clients; fails if one did not answer 200."""
        clients = event["clients"]
        if len(clients) == 1:
            await self._post(event, clients[0])
        else:
            await asyncio.gather(*(self._post(event, client) for client in clients))

    async def _post(self, event: Mapping[str, Any], client: str) -> None:
        async with self._session.post(self._urls[client], data=self._body(event, client)) as response:
            await response.read()
            if response.status != 200:
                raise RuntimeError(f"{client} answered {response.status}")

    def _body(self, event: Mapping[str, Any], client: str) -> bytes:
        now = int(time.time())
        claims = {
            "iss": SETTINGS["iss"],
            "aud": client,
            "iat": now,
            "exp": now + 120,
            "jti": str(uuid4()),
            "events": PURPOSE,
            "sub": event["sub"],
            "sid": event["sid"],
        }
        token = jwt.encode(claims, self._key, algorithm=SETTINGS["alg"], headers=self._headers)
        return urlencode({"logout_token": token}).encode()


def events() -> Iterator[dict[str, Any]]:
    """What is to be published."""
    with Path(SETTINGS["events"]).open() as lines:
        yield from map(json.loads, lines)
