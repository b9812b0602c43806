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

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key

SETTINGS: Mapping[str, Any] = json.loads(Path(os.environ["PEER_SETTINGS"]).read_text())
AMQP: str = SETTINGS["amqp"]
QUEUE: str = SETTINGS["queue"]
EVENTS_AT_ONCE: int = SETTINGS["events_at_once"]
TYPE = {"Content-Type": "application/x-www-form-urlencoded"}
PURPOSE = {"http://schemas.openid.net/event/backchannel-logout": {}}


class Minter:
    """The body of the request to one client."""

    def __init__(self) -> None:
        # Any: PyJWT names the kinds of key, of which this is one by its settings
        self._key: Any = load_pem_private_key(Path(SETTINGS["key"]).read_bytes(), None)
        self._headers = {"typ": "logout+jwt", "kid": SETTINGS["kid"]}

    def body(self, event: Mapping[str, Any], client: str) -> bytes:
        """With a token of its own, as BackChannel Logout 1.0 wants it."""
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


class Teller:
    """For the peers with an event loop, in which it must be made."""

    def __init__(self) -> None:
        import aiohttp  # noqa: PLC0415  Celery's worker, under gevent, has no use for it
        from yarl import URL  # noqa: PLC0415

        self._minter = Minter()
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
        async with self._session.post(self._urls[client], data=self._minter.body(event, client)) as response:
            await response.read()
            if response.status != 200:
                raise RuntimeError(f"{client} answered {response.status}")


def events() -> Iterator[dict[str, Any]]:
    """What is to be published."""
    with Path(SETTINGS["events"]).open() as lines:
        yield from map(json.loads, lines)
