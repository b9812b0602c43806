"""Who takes part in a soak: identity servers that publish without end, clients of which one has moods, a registry.

Three clients behave as the rig's, though `flaky` fails less often; `moody` hangs, refuses connections or answers 503
when told to; fifty are told together now and then, and the registry has a new guest at each reload.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, Self

from aiohttp import web

from tests.faults.rig import CLIENTS, refuses
from tests.rabbitmq_node import free_ports
from tests.system.clients import Answer, Clients, Hit
from tests.system.ledger import Pair
from tests.system.publisher import Publisher
from tests.system.site import ISSUER, Site, client
from tests.verifier import verify

MOODY = "moody"
MANY = tuple(f"many-{number:02}" for number in range(50))
GUESTS = 20  # that stay registered: minutes more than a delivery may wait for a broker that comes back
FLAKY_EVERY = 12  # events of which it fails at the first attempt: one that always fails a third is rightly held back
VERIFY_EVERY = 50  # a strict look at each token would cost more than the worker


class Mood(StrEnum):
    """How `moody` answers."""

    WELL = "well"
    HANGS = "hangs"
    REFUSES = "refuses connections"
    UNAVAILABLE = "answers 503"


class Crowd(Clients):
    """All clients on one server, `moody` at a port of its own. What they find wrong with a token is a complaint."""

    def __init__(self, site: Site, complaints: list[str], answer: float) -> None:
        super().__init__(self._judge)
        self._answer = answer
        self.moody_port = 0
        self.mood = Mood.WELL
        self._well = asyncio.Event()
        self._site = site
        self._complaints = complaints
        self._jtis: set[str] = set()
        self._door: web.TCPSite | None = None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        [self.moody_port] = free_ports(1)
        await self.be(Mood.WELL)
        return self

    async def be(self, mood: Mood) -> None:
        """From now on. One that refuses connections answers 503 on those that stand, and closes them."""
        self.mood = mood
        if mood is Mood.REFUSES and self._door is not None:
            await self._door.stop()
            self._door = None
        elif mood is not Mood.REFUSES and self._door is None:
            self._door = web.TCPSite(self._runner, "127.0.0.1", self.moody_port, backlog=1024)
            await self._door.start()
        if mood is Mood.WELL:
            self._well.set()
        else:
            self._well.clear()

    def _judge(self, hit: Hit) -> Answer | Awaitable[Answer]:
        self._inspect(hit)
        # It came just now, so it is the last; kept whole, those of half an hour would take a gigabyte.
        self.hits[-1] = replace(hit, token="", claims={"sid": hit.who}, header={})
        return self._moody() if hit.path == f"/{MOODY}" else self._steady(hit)

    def _inspect(self, hit: Hit) -> None:
        jti = str(hit.claims["jti"])
        if jti in self._jtis:
            self._complaints.append(f"jti {jti} came twice")
        self._jtis.add(jti)
        if len(self.hits) % VERIFY_EVERY == 0:
            try:
                verify(hit.token, self._site.jwks(ISSUER), iss=ISSUER, aud=hit.path.removeprefix("/"), now=hit.at)
            except AssertionError as error:
                self._complaints.append(f"a wrong token at {hit.path}: {error}")

    async def _steady(self, hit: Hit) -> Answer:
        await asyncio.sleep(self._answer)
        number = int(hit.who)
        if hit.path == "/refusing" and refuses(number):
            return 403
        return 503 if hit.path == "/flaky" and number % FLAKY_EVERY == 0 and hit.nth == 1 else 200

    async def _moody(self) -> Answer:
        match self.mood:
            case Mood.WELL:
                return 200
            case Mood.HANGS:
                await self._well.wait()
                return 503  # the worker has hung up: a success now would count as told what it knows nothing of
            case Mood.UNAVAILABLE:
                return 503
            case Mood.REFUSES:
                closing = web.Response(status=503)
                closing.force_close()
                return closing


class Registrations:
    """The registry as it changes: each edition has one guest more, the oldest goes, and `healthy` has a new URI."""

    def __init__(self, site: Site, crowd: Crowd) -> None:
        self.edition = 0
        self._site = site
        self._crowd = crowd

    @property
    def guest(self) -> str:
        """The newest. Named from the moment it is written: a worker that does not know it yet has to wait."""
        return f"guest-{self.edition}"

    def write(self) -> None:
        """The next edition."""
        self.edition += 1
        guests = [f"guest-{number}" for number in range(max(1, self.edition - GUESTS + 1), self.edition + 1)]
        told = [client(name, self._crowd.url(name)) for name in (*CLIENTS[1:], *MANY, *guests)]
        healthy = client("healthy", f"{self._crowd.url('healthy')}?edition={self.edition}")
        moody = client(MOODY, f"http://127.0.0.1:{self._crowd.moody_port}/{MOODY}", ISSUER)
        self._site.write_clients([healthy, *told, moody])


class IdentityServer(Publisher):
    """Publishes until it is told to stop: every tenth event without an id, some to many clients, some to a guest."""

    def __init__(self, url: str, prefix: str, guest: Callable[[], str], *, exchange: str, first: int) -> None:
        super().__init__(url, prefix, CLIENTS, exchange=exchange)
        self._guest = guest
        self._first = first

    def numbers(self, over: asyncio.Event) -> Iterator[int]:
        """The numbers of its events, until it is over."""
        number = self._first
        while not over.is_set():
            yield number
            number += 1

    def event(self, number: int) -> Mapping[str, Any]:
        """See the class. Its sid is its number, as the rig's clients expect."""
        sid = str(number)
        event = {"iss": ISSUER, "sub": f"user-{number % 1000}", "sid": sid, "clients": self._named(number)}
        return event if number % 10 == 3 else {"id": sid, **event}

    def _named(self, number: int) -> Sequence[str]:
        named = list(CLIENTS)
        if number % 4 == 0:
            named.append(MOODY)
        if number % 20 == 1:
            named.append(self._guest())
        if number % 200 == 2:
            named += MANY
        return named


def to_die(confirmed: Mapping[str, Sequence[str]]) -> dict[Pair, str]:
    """The deliveries that must end as dead letters."""
    return {(event, "refusing"): "refused" for event in confirmed if refuses(int(event))}
