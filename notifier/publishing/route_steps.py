"""The steps of each route that accepts events: check the request's kind, read its body in time, publish before 202."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from notifier.model.defaults import MAX_EVENT
from notifier.model.errors import DiskFull, InputIssue, QueueError, QueueUnavailable
from notifier.model.message import Lane, MessageDraft
from notifier.model.shared_resources import shared_bound, shared_slots
from notifier.network.listeners.problem import Refusal, malformed_refusal, problem_response

BODY_RETRY_SECONDS = 2.0  # seconds between a route's deadline for its body and the end of the connection
RETRY_AFTER_SECONDS = "5"  # seconds after which a publisher should retry
MAX_PUBLISHED_AT_ONCE = 128  # of one sender: four windows of a queue on RabbitMQ
LANES = {"events": Lane.EVENTS, "bulk": Lane.BULK}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """The limits of the listener: bytes, seconds, concurrent requests."""

    max_event: int = MAX_EVENT
    body_timeout: float = 10.0
    accept_timeout: float = 5.0
    requests: int = shared_bound(256)
    requests_of_token: int = shared_bound(128)  # and of a source whose sender has given its proof
    unverified: int = shared_bound(128)  # to all sources, whose sender is unauthenticated until the body is read
    unverified_of_source: int = shared_bound(64)
    unverified_timeout: float = 5.0


class OncePublisher(Protocol):
    """Publishes the sign-outs of senders that do not send again."""

    def add_senders(self, list_names: Callable[[], Collection[str]]) -> None:
        """Let more senders share the means. `list_names` returns the configured names."""

    async def publish(self, sender: str, event_id: str, lane: Lane, message: MessageDraft, deadline: float) -> None:
        """Return once the message is durable. Raises QueueError. `event_id`: the same for copies.

        `deadline`: of the sender, by the clock of the event loop; the caller ends the call then.
        """


class SenderTurns:
    """Publishes messages. Beyond MAX_PUBLISHED_AT_ONCE a message waits for others of its sender."""

    def __init__(self, publish: Callable[[Lane, MessageDraft], Awaitable[None]]) -> None:
        self._publish = publish
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: shared_slots(MAX_PUBLISHED_AT_ONCE))

    async def publish(self, sender: str, lane: Lane, message: MessageDraft, begin_by: float | None = None) -> None:
        """Return once the message is durable in the queue. Raises QueueError.

        `begin_by`: the moment, by the clock of the event loop, after which the message is not published any more.
        """
        turns = self._turns[sender]
        try:
            async with asyncio.timeout_at(begin_by):
                await turns.acquire()
        except TimeoutError:
            raise QueueUnavailable(f"{MAX_PUBLISHED_AT_ONCE} messages of {sender} wait for the queue") from None
        try:
            await self._publish(lane, message)
        finally:
            turns.release()


class DirectPublisher:
    """Publishes to the queue alone."""

    def __init__(self, publish: Callable[[Lane, MessageDraft], Awaitable[None]]) -> None:
        self._turns = SenderTurns(publish)

    def add_senders(self, list_names: Callable[[], Collection[str]]) -> None:
        """Do nothing."""

    async def publish(self, sender: str, _event_id: str, lane: Lane, message: MessageDraft, _deadline: float) -> None:
        """Return once the message is durable in the queue. Raises QueueError."""
        await self._turns.publish(sender, lane, message)


def media_type(request: web.Request) -> str:
    """Return the media type of the body, in lower case and without parameters; empty without `Content-Type`."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def read_lane(request: web.Request) -> Lane:
    """Return the lane that the query selects. Raises Refusal (400)."""
    lane = LANES.get(request.query.get("lane", "events"))
    if lane is None:
        raise malformed_refusal(InputIssue("lane", f"must be one of {', '.join(LANES)}"))
    return lane


def refuse_compressed(request: web.Request) -> None:
    """Raise Refusal (415) for a compressed body: nothing is decompressed, so a small body cannot become a large one."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refusal(problem_response(415, "The body must not be compressed", headers={"Accept-Encoding": "identity"}))


async def read_body(request: web.Request, limits: ApiLimits, within: float | None = None) -> bytes:
    """Read the body, in at most `within` seconds (default: the limit of `limits`).

    Raises Refusal (400, 408) and HTTPRequestEntityTooLarge.
    """
    size = request.content_length
    if size is not None and size > limits.max_event:
        raise web.HTTPRequestEntityTooLarge(limits.max_event, size)
    try:
        async with asyncio.timeout(limits.body_timeout if within is None else within):
            return await request.read()
    except TimeoutError:
        raise Refusal(_close_after(problem_response(408, "The body did not come in time"))) from None
    except ConnectionResetError:  # the sender is gone: the response is only for metrics and the log
        raise Refusal(_close_after(problem_response(408, "The body did not come whole"))) from None
    except web.RequestPayloadError:
        raise Refusal(_close_after(problem_response(400, "The body is broken HTTP"))) from None


async def publish_in_time(publishing: Awaitable[None], limits: ApiLimits, then: str) -> None:
    """Wait until the event is durable. Raises Refusal (503), with `then` as advice, if the queue is unavailable."""
    try:
        async with asyncio.timeout(limits.accept_timeout):
            await publishing
    except (QueueError, TimeoutError) as error:
        why = "The disk of the queue is full" if isinstance(error, DiskFull) else "The queue is unavailable"
        raise Refusal(problem_response(503, f"{why}; {then}", headers={"Retry-After": RETRY_AFTER_SECONDS})) from None


def _close_after(response: web.Response) -> web.Response:
    response.force_close()
    return response
