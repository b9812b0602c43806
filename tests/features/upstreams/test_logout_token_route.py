"""Logout tokens of several senders that are published at the same time."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from notifier.features.upstreams.relay_settings import RelaySettings
from notifier.features.upstreams.relay_tokens import MAX_DEAD_LETTERS_PER_HOUR, DeadLetterBudget, Relay
from notifier.features.upstreams.server_keys import ServerKeys
from notifier.features.upstreams.upstream_routes import BACK_CHANNEL_PATH, LogoutTokenRoute, TokenSender
from notifier.features.upstreams.upstream_token import SeenTokens, UpstreamResult, VerifiedLogout
from notifier.model.errors import QueueUnavailable
from notifier.model.message import Kind, Lane, MessageDraft
from notifier.model.record import record
from notifier.model.registry import Registry
from notifier.network.http.issuer_document import DocumentIssue
from notifier.network.listeners.listener import listen
from notifier.network.listeners.throttle import RequestSlots
from notifier.network.listeners.web_app import web_app
from notifier.publishing.route_steps import MAX_PUBLISHED_AT_ONCE, DirectPublisher
from tests.system.waiting import until


@record
class Sender:
    """A sender whose tokens are just their `jti`."""

    name: str

    @property
    def verifier(self) -> "Sender":
        """It verifies its tokens itself."""
        return self

    async def verify(self, token: bytes) -> VerifiedLogout:
        """Accept any token."""
        now = time.time()
        jti = token.decode()
        return VerifiedLogout(iss="i", audiences=("shop",), sub="u", sid=None, jti=jti, iat=now, until=now + 60)

    def id_of(self, logout: VerifiedLogout) -> str:
        """Return the id of a token."""
        return f"{self.name}-{logout.jti}"

    def to_message(self, logout: VerifiedLogout) -> MessageDraft:
        """Return its message."""
        return MessageDraft(kind=Kind.EVENT, body=b"{}", message_id=self.id_of(logout))

    def on_unpublished(self, token_id: str) -> None:
        """Count nothing."""


class Place:
    """The route, and a queue that confirms nothing until `confirming` is set."""

    def __init__(self) -> None:
        self.published = list[str | None]()
        self.confirming = asyncio.Event()
        self.counts = Counter[tuple[str, UpstreamResult]]()
        self.is_away = False
        self.url = ""

    async def publish(self, _lane: Lane, message: MessageDraft) -> None:
        """Publish a message."""
        if self.is_away:
            raise QueueUnavailable
        self.published.append(message.message_id)
        await self.confirming.wait()

    def count(self, sender: str, result: UpstreamResult, _text: str) -> None:
        """Count a request."""
        self.counts[sender, result] += 1

    async def send(self, session: aiohttp.ClientSession, sender: str, jti: int) -> int:
        """Send a token; its status."""
        url = f"{self.url}/upstreams/{sender}/backchannel-logout"
        async with session.post(url, data={"logout_token": str(jti)}) as answer:
            return answer.status


@asynccontextmanager
async def answering(
    slots: RequestSlots | None = None, find: Callable[[str], TokenSender] = lambda name: Sender(name=name)
) -> AsyncIterator[Place]:
    """Run the route."""
    place = Place()
    route = LogoutTokenRoute(find, DirectPublisher(place.publish), place.count, SeenTokens(), slots)
    app = web_app([web.post(BACK_CHANNEL_PATH, route.post_logout)], requests=1000)
    listener = await listen(app, "127.0.0.1", 0, key="web.listen")
    place.url = listener.url
    try:
        yield place
    finally:
        place.confirming.set()
        await listener.close()


async def test_a_sender_that_sends_many_tokens_delays_no_other() -> None:
    """Beyond MAX_PUBLISHED_AT_ONCE they wait for each other, not in the line of the queue before others' tokens."""
    count = 2 * MAX_PUBLISHED_AT_ONCE
    async with answering() as place, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        many = [asyncio.create_task(place.send(session, "a", nth)) for nth in range(count)]
        await until(
            lambda: asyncio.sleep(0, len(place.published)), lambda published: published == MAX_PUBLISHED_AT_ONCE
        )
        other = asyncio.create_task(place.send(session, "b", 1))
        await until(lambda: asyncio.sleep(0, place.published[-1]), lambda last: last == "b-1")
        place.confirming.set()
        assert set(await asyncio.gather(*many, other)) == {200}
        assert place.counts == {("a", UpstreamResult.ACCEPTED): count, ("b", UpstreamResult.ACCEPTED): 1}


async def test_tokens_beyond_the_slots_of_a_sender_are_to_be_sent_again() -> None:
    """Others have theirs."""
    slots = RequestSlots(5, 3, "")
    async with answering(slots) as place, aiohttp.ClientSession() as session:
        many = [asyncio.create_task(place.send(session, "a", nth)) for nth in range(5)]
        await until(lambda: asyncio.sleep(0, place.counts["a", UpstreamResult.BUSY]), lambda busy: busy == 2)
        other = asyncio.create_task(place.send(session, "b", 1))
        await until(lambda: asyncio.sleep(0, len(place.published)), lambda published: published == 4)
        place.confirming.set()
        assert sorted(await asyncio.gather(*many, other)) == [200] * 4 + [503] * 2


def relay() -> Relay:
    """A relay whose registry has no client."""

    async def unread() -> DocumentIssue:
        """Nothing is read."""
        return DocumentIssue(text="")

    keys = ServerKeys("a", unread, tuple, time.monotonic)
    return Relay(
        name="a", settings=RelaySettings(), iss="i", verifier=Sender(name="a"), keys=keys,
        dead_letters=DeadLetterBudget(time.monotonic), registry=Registry,
    )  # fmt: skip


async def test_tokens_that_could_not_be_published_are_no_dead_letters() -> None:
    """While the broker is unreachable, they do not use up the dead letters of an hour. Those in publication count."""
    unknowing = relay()
    connector = aiohttp.TCPConnector(limit=0)
    async with answering(find=lambda _name: unknowing) as place, aiohttp.ClientSession(connector=connector) as session:
        place.is_away = True
        for nth in range(MAX_DEAD_LETTERS_PER_HOUR + 1):
            assert await place.send(session, "a", nth) == 503
        assert place.counts == {("a", UpstreamResult.QUEUE_AWAY): MAX_DEAD_LETTERS_PER_HOUR + 1}
        place.is_away = False
        sent = [asyncio.create_task(place.send(session, "a", nth)) for nth in range(MAX_DEAD_LETTERS_PER_HOUR + 1)]
        await until(lambda: asyncio.sleep(0, place.counts["a", UpstreamResult.DEAD_LETTERS]), lambda count: count == 1)
        place.confirming.set()
        assert sorted(await asyncio.gather(*sent)) == [200] * MAX_DEAD_LETTERS_PER_HOUR + [503]
