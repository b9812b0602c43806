"""Parts of one event count as one message, and follow one another."""

import asyncio

import pytest

from notifier.messages.event_clients import digest_event
from notifier.messages.selection import DELIVERIES_IN_A_ROW
from notifier.model.documents.documents import EventDocument, dump_event
from notifier.model.message import PART_OF_HEADER, Kind, Lane, Message
from notifier.model.outcome import HttpResponse
from notifier.model.request import Request
from notifier.model.session_ended import SessionEnded
from tests.delivery.worker_harness import ISS, WorkerHarness, client, running

SIZE = 3 * DELIVERIES_IN_A_ROW  # clients of a part


def take_part(harness: WorkerHarness, event: str, clients: list[str]) -> Message:
    """A part comes as the intake wrote it."""
    part = SessionEnded(id=event, id_given=True, iss=ISS, sub="s", sid=None, clients=tuple(clients), publisher="idp")
    body = dump_event(EventDocument(event=part))
    return harness.take(body, kind=Kind.EVENT, headers={PART_OF_HEADER: digest_event(part)})


def make_stage(
    parts: int, *others: str, max_in_flight: int = 512
) -> tuple[WorkerHarness, list[list[str]], asyncio.Event]:
    """Return a worker with clients that answer at a signal, their names for each part, and the signal."""
    names = [[f"c{part}-{number}" for number in range(SIZE)] for part in range(parts)]
    clients = [*others, *(name for part in names for name in part)]
    harness = WorkerHarness(*map(client, clients), max_in_flight=max_in_flight, shutdown_grace=5)
    return harness, names, harness.hold(*(name for part in names for name in part))


async def test_events_alternate_and_their_parts_follow_one_another() -> None:
    """Ten deliveries of one event, ten of the other: however many parts each has."""
    harness, names, answer = make_stage(5)
    async with running(harness):
        for event, part in zip("aaabb", names, strict=True):
            take_part(harness, event, part)
        await harness.until(lambda: len(harness.notified()) == 5 * SIZE)
        answer.set()
        await harness.until(lambda: len(harness.queue.acked) == 5)
    order = [harness.notified()[start].split("-")[0] for start in range(0, 5 * SIZE, DELIVERIES_IN_A_ROW)]
    assert order == ["c0", "c3"] * 3 + ["c1", "c4"] * 3 + ["c2"] * 3


@pytest.mark.parametrize(("is_part", "running_client"), [(True, "c0-3"), (False, "c0-13")])
async def test_a_fresh_event_waits_for_one_delivery_of_large_ones(is_part: bool, running_client: str) -> None:
    """It does not wait for a turn of each of them."""
    harness, names, answer = make_stage(3, "shop")

    async def behave(_request: Request) -> HttpResponse:
        harness.event("shop")
        return HttpResponse(status=200)

    harness.receivers.behaviours[running_client] = behave
    async with running(harness):
        for event, part in zip("abc", names, strict=True):
            if is_part:
                take_part(harness, event, part)
            else:
                harness.event(*part, id=event)
        await harness.until(lambda: len(harness.notified()) == 3 * SIZE + 1)
        answer.set()
    order = harness.notified()
    assert order.index("shop") - order.index(running_client) <= 3, "one in each round of the event loop"


async def test_a_large_event_gets_each_tenth_delivery() -> None:
    """However many fresh events there are."""
    fresh = [f"fresh{number}" for number in range(100)]
    harness, names, answer = make_stage(1, *fresh)
    async with running(harness):
        take_part(harness, "a", names[0])
        for name in fresh:
            harness.event(name)
        await harness.until(lambda: len(harness.notified()) == SIZE + len(fresh))
        answer.set()
    assert sum(name in fresh for name in harness.notified()[:100]) == 90


@pytest.mark.parametrize("events", ["aaa", "abb"])
async def test_drain_returns_unstarted_parts(events: str) -> None:
    """A started part is finished, so that no client is notified twice."""
    harness, names, answer = make_stage(3, max_in_flight=DELIVERIES_IN_A_ROW)
    async with running(harness):
        first, *others = [take_part(harness, event, part) for event, part in zip(events, names, strict=True)]
        await harness.until(lambda: len(harness.notified()) > 0)
        harness.worker.stop()
        answer.set()
    begun = {name.split("-")[0] for name in harness.notified()}
    assert harness.queue.acked == [first, *(one for number, one in enumerate(others, 1) if f"c{number}" in begun)]
    assert len(harness.notified()) == SIZE * len(begun)


async def test_all_parts_are_redelivered_after_a_loss() -> None:
    """Those that waited behind another one are forgotten with it."""
    harness, names, answer = make_stage(2, max_in_flight=DELIVERIES_IN_A_ROW)
    async with running(harness):
        for part in names:
            take_part(harness, "a", part)
        await harness.until(lambda: len(harness.notified()) > 0)
        harness.worker.on_lost(Lane.EVENTS)
        answer.set()
        await harness.until(lambda: harness.worker.in_flight == 0)
        again = [take_part(harness, "a", part) for part in names]
        await harness.until(lambda: all(part in harness.queue.acked for part in again))
    assert sorted(harness.notified()) == sorted(name for part in names for name in part)
