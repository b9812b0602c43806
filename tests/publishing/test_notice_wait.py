"""Test `POST /v1/events?wait=…` on a real socket: the answer, the duration, and the number of waits."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from notifier.model.errors import QueueUnavailable
from notifier.model.message import Lane
from notifier.model.notice import DeliveryResult, Notice
from notifier.model.session_ended import SessionEnded
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.publishing.notice_wait import WaitingRequests
from tests.publishing.serving import ISS, NOW, serving, sources_of

EVENT = {"id": "e-1", "iss": ISS, "sub": "alice", "clients": ["shop", "mail"]}


def notice(fate: DeliveryResult, client_id: str = "", **more: Any) -> Notice:
    """Return a notice of the event at one of its two clients."""
    return Notice(fate=fate, iss=ISS, event_id="e-1", client_id=client_id, delivery_id=client_id, of=2, **more)


class Subject:
    """A listener whose worker sends the given notices as soon as the event is durable."""

    def __init__(self) -> None:
        numbers = itertools.count()
        self.waiting = WaitingRequests("here", clock=lambda: NOW, new_id=lambda: f"w-{next(numbers)}", most=2)
        self.worker: Callable[[], list[Notice]] = list
        self.taken: list[SessionEnded] = []
        self.away = False
        self.url = ""

    async def accept(self, event: SessionEnded, lane: Lane) -> None:
        """Implement the port."""
        if self.away:
            raise QueueUnavailable("away")
        self.taken.append(event)
        for each in self.worker():
            assert event.reply_to is not None
            assert self.waiting.on_notice(event.reply_to.correlation_id, each)

    async def post(self, wait: str) -> tuple[int, Any]:
        """Return status and answer."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
            sent = {"Content-Type": "application/json"}
            async with http.post(f"{self.url}/v1/events?wait={wait}", data=json.dumps(EVENT), headers=sent) as answer:
                return answer.status, await answer.json(content_type=None)


@pytest.fixture
async def subject() -> AsyncIterator[Subject]:
    """See `Subject`."""
    made = Subject()
    async with serving(build_api_app(EventRequests(made.accept, sources_of(waiting=made.waiting)))) as listener:
        made.url = listener.url
        yield made


async def test_200_means_that_every_client_has_a_final_result(subject: Subject) -> None:
    """At once, for any wait."""
    subject.worker = lambda: [
        notice(DeliveryResult.DELIVERED, "shop", attempts=1),
        notice(DeliveryResult.DEAD, "mail", reason="refused", text="the client answered 403", attempts=1),
    ]
    assert await subject.post("30s") == (
        200,
        {
            "id": "e-1",
            "complete": True,
            "clients": [
                {"fate": "delivered", "client_id": "shop", "attempts": 1},
                {
                    "fate": "dead",
                    "client_id": "mail",
                    "reason": "refused",
                    "attempts": 1,
                    "text": "the client answered 403",
                },
            ],
        },
    )


async def test_202_is_sent_at_once_if_a_result_is_due_after_the_wait(subject: Subject) -> None:
    """A retry that is due after the end of the wait is not awaited."""
    subject.worker = lambda: [
        notice(DeliveryResult.DELIVERED, "shop", attempts=1),
        notice(DeliveryResult.RETRYING, "mail", reason="connect", next_due=NOW + 31, attempts=1),
    ]
    status, document = await subject.post("30s")
    assert (status, document["complete"]) == (202, False)
    assert document["clients"][1] == {
        "fate": "retrying",
        "client_id": "mail",
        "reason": "connect",
        "attempts": 1,
        "next_due": "1970-01-01T00:17:11.000000Z",
    }


async def test_202_has_the_results_at_the_end_of_the_wait(subject: Subject) -> None:
    """The second client has no result; the event is durable all the same."""
    subject.worker = lambda: [notice(DeliveryResult.DELIVERED, "shop", attempts=1)]
    status, document = await subject.post("100ms")
    assert (status, [each["client_id"] for each in document["clients"]]) == (202, ["shop"])
    assert len(subject.taken) == 1


async def test_copy_is_answered_at_once(subject: Subject) -> None:
    """Its result was sent before."""
    subject.worker = lambda: [notice(DeliveryResult.DUPLICATE)]
    assert await subject.post("30s") == (200, {"id": "e-1", "complete": True, "fate": "duplicate", "clients": []})


@pytest.mark.parametrize("wait", ["31s", "5", "-1s", "soon", ""])
async def test_invalid_wait_is_refused(wait: str, subject: Subject) -> None:
    """400 has the reason, and no event is accepted."""
    status, document = await subject.post(wait)
    assert (status, document["mistakes"][0]["path"]) == (400, "wait")
    assert subject.taken == []


async def test_number_of_waits_is_bounded(subject: Subject) -> None:
    """The third of two is answered at once; its event is accepted, and no reply is requested."""
    waiting = [asyncio.create_task(subject.post("30s")) for _ in range(2)]
    async with asyncio.timeout(20):
        while len(subject.taken) < 2:  # noqa: ASYNC110  the listener has no event for it
            await asyncio.sleep(0.01)
    assert await subject.post("30s") == (202, {"id": "e-1", "complete": False, "clients": []})
    assert subject.taken[2].reply_to is None
    subject.waiting.close()  # as a drain does
    assert [status for status, _ in await asyncio.gather(*waiting)] == [202, 202]
    subject.away = True
    assert (await subject.post("30s"))[0] == 503


async def test_refused_publish_leaves_no_wait(subject: Subject) -> None:
    """For any number of refusals."""
    subject.away = True
    for _ in range(5):
        assert (await subject.post("30s"))[0] == 503
    subject.away, subject.worker = False, lambda: [notice(DeliveryResult.DUPLICATE)]
    assert (await subject.post("30s"))[0] == 200
