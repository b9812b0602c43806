"""The story's exit status is correct: fake services, valid and faulty, replace the service."""

import asyncio
import io
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from rich.console import Console

from notifier.delivery.facts import DeadLettered, Observer
from notifier.demo.console_demo import TokenPage
from notifier.demo.story import Pace, RunningService, StartService, play_story
from notifier.demo.token_check import LOGOUT_EVENT
from notifier.feature import FeatureRuntime
from notifier.model.client import Algorithm
from notifier.model.delivery import Delivery
from notifier.model.documents.dead_letter import DeadLetter
from notifier.model.outcome import DeadReason
from notifier.tokens.key_files import KeySource, load_keys
from notifier.tokens.key_ring import KeyRing
from tests.support.outcome_facts import delivered

QUICK = Pace(events=4, interval_seconds=0.0, slow_answer_seconds=0.0, max_seconds=10.0)
Mint = Callable[[dict[str, object]], dict[str, object]]


class FakeService:
    """A minimal service: it tries each client four times in a row. `tamper` may change the claims of each token."""

    def __init__(
        self, folder: Path, observe: Observer, *, forgets: str, tamper: Mint, http: aiohttp.ClientSession
    ) -> None:
        self._uris = {
            one["client_id"]: one["backchannel_logout_uri"]
            for one in yaml.safe_load((folder / "clients.yaml").read_text())
        }
        self._issuer: str = next(iter(yaml.safe_load((folder / "notifier.yaml").read_text())["issuers"]))
        self._keys: KeyRing = load_keys({self._issuer: [KeySource(path=folder / "key.pem")]})
        self._observe = observe
        self._forgets = forgets
        self._tamper = tamper
        self._http = http
        self._jtis = 0
        self._dead: list[DeadLetter] = []

    async def publish(self, event: Mapping[str, object]) -> None:
        """Deliver it at once."""
        await asyncio.gather(*(self._deliver(event, client_id) for client_id in self._uris))

    async def dead_letters(self) -> Sequence[DeadLetter]:
        """Return the dead letters, except those of one client, which this service loses."""
        return [letter for letter in self._dead if letter.client_id != self._forgets]

    async def _deliver(self, event: Mapping[str, Any], client_id: str) -> None:
        for _ in range(4):
            if await self._post(event, client_id) == 204:
                self._observe(delivered(_delivery(event, client_id)))
                return
        given_up = DeadLetter(
            id=f"{event['id']}/{client_id}",
            reason=DeadReason.EXPIRED,
            text="",
            dead_since=time.time(),
            client_id=client_id,
            event_id=event["id"],
        )
        self._dead.append(given_up)
        self._observe(
            DeadLettered(
                iss=event["iss"], client_id=client_id, event_id=event["id"], reason=DeadReason.EXPIRED, text=""
            )
        )

    async def _post(self, event: Mapping[str, Any], client_id: str) -> int:
        now = int(time.time())
        self._jtis += 1
        claims: dict[str, object] = {
            "iss": event["iss"],
            "aud": client_id,
            "iat": now,
            "exp": now + 120,
            "jti": f"j-{self._jtis}",
            "sub": event["sub"],
            "sid": event["sid"],
            "events": {LOGOUT_EVENT: {}},
        }
        token = await self._keys.sign(self._issuer, Algorithm.RS256, "logout+jwt", self._tamper(claims))
        try:
            async with self._http.post(self._uris[client_id], data={"logout_token": token}) as response:
                return response.status
        except aiohttp.ClientError:
            return 0


def _delivery(event: Mapping[str, Any], client_id: str) -> Delivery:
    return Delivery(
        id=f"{event['id']}/{client_id}",
        event_id=event["id"],
        id_given=True,
        iss=event["iss"],
        client_id=client_id,
        sub=event["sub"],
        sid=event["sid"],
    )


def fake_service(*, forgets: str = "", tamper: Mint = lambda claims: claims) -> StartService:
    """Return the factory by which the story starts such a service."""

    @asynccontextmanager
    async def started(config: Path, observe: Observer) -> AsyncIterator[RunningService]:
        async with aiohttp.ClientSession() as http:
            yield FakeService(config.parent, observe, forgets=forgets, tamper=tamper, http=http)

    def start(config: Path, observe: Observer) -> AbstractAsyncContextManager[RunningService]:
        return started(config, observe)

    return start


async def run_story(start: StartService) -> tuple[int, str]:
    """Return the exit status of a story of four sign-outs, and its output."""
    out = io.StringIO()
    status = await play_story(start, Console(file=out, width=100), QUICK)
    return status, out.getvalue()


async def test_valid_service_exits_0() -> None:
    """The clients' records and the dead letters contain every delivery: exit 0, and the sum is printed."""
    status, text = await run_story(fake_service())
    assert status == 0
    assert "20 deliveries = 12 delivered + 8 dead letters (8 expired): every one is accounted for." in text
    assert re.search(r"forum +flaky +4 +4 ", text)
    assert re.search(r"museum +dead +4 +0 .* 4 expired", text)


async def test_lost_dead_letter_exits_1() -> None:
    """A delivery in neither the clients' records nor the queue is listed, although the service reported an end."""
    status, text = await run_story(fake_service(forgets="museum"))
    assert status == 1
    assert "4 UNACCOUNTED FOR" in text
    assert "event sign-out-03: museum neither accepted it nor is it a dead letter" in text


@pytest.mark.parametrize(
    ("tamper", "rule"),
    [
        (lambda claims: {**claims, "jti": "always"}, "jti was seen before"),
        (lambda claims: {**claims, "nonce": "n"}, "nonce must not be there"),
    ],
    ids=["jti", "nonce"],
)
async def test_invalid_token_exits_1(tamper: Mint, rule: str) -> None:
    """The clients verify tokens: one violated rule and the exit status is 1, with the rule."""
    status, text = await run_story(fake_service(tamper=tamper))
    assert status == 1
    assert "tokens were found invalid" in text
    assert rule in text


# ── The page that signs a browser into the demo's console: once, without a token in an address, and for nobody else


async def test_it_opens_once() -> None:
    """Whoever comes second, or by another path, gets nothing."""
    door = TokenPage("a-token")
    running = door.feature().run(None)  # type: ignore[arg-type]  # it needs nothing of the worker
    assert isinstance(running, FeatureRuntime)
    app = web.Application()
    app.add_routes(running.api)
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/demo/")).status == 404
        first, second = [await client.get(door.path) for _ in range(2)]
        page = await first.text()
        assert (first.status, second.status) == (200, 404)
        assert "a-token" not in door.path + await second.text()
        [nonce] = re.findall('<script nonce="(.*?)">', page)
        assert f"script-src 'nonce-{nonce}'" in first.headers["Content-Security-Policy"]
        assert (first.headers["Cache-Control"], first.headers["Referrer-Policy"]) == ("no-store", "no-referrer")


def test_each_demo_has_its_own_path() -> None:
    """Nobody can guess it."""
    assert TokenPage("a").path != TokenPage("a").path
    assert len(TokenPage("a").path) > len("/demo/") + 20
