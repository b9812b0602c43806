"""Measures how soon deferred deliveries are sent whose cause ended while the workers were replaced."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from notifier.configuration.live_configuration import RouteChanges
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.errors import InternalFault
from notifier.model.message import Transfer, TransferResult
from notifier.model.outcome import Cause
from notifier.model.record import copy_record
from notifier.model.request import PreparedRequest
from notifier.queues.passes import Reader, ReadMessage
from notifier.service.deferral_release import DeferralRelease
from tests.simulator.broker import CONFIRM, Broker, to_retry
from tests.simulator.clients import ISS, client
from tests.simulator.world import Process, World


class Pass:
    """A pass over the messages that are in delay queues at its start."""

    left = 0

    def __init__(self, broker: Broker, read: Reader[Any]) -> None:
        self._broker, self._read = broker, read
        self._unread = [*broker.delayed.items()]

    async def next_page(self) -> Sequence[ReadMessage[Any]]:
        """Return those that are still there."""
        await asyncio.sleep(CONFIRM)
        page, self._unread = self._unread, []
        return [
            self._read(copy_record(to_retry(message), tag=ends))
            for ends, message in page
            if ends in self._broker.delayed
        ]

    async def move(self, transfers: Sequence[Transfer]) -> TransferResult:
        """Put each elsewhere, unless it has left its delay queue."""
        await asyncio.sleep(CONFIRM)
        done = []
        for each in transfers:
            ends = cast("asyncio.TimerHandle", each.taken.tag)
            if self._broker.delayed.pop(ends, None) is not None:
                ends.cancel()
                self._broker.loop.call_later(each.wait, self._broker.put, each.queue, each.outgoing)
                done.append(each.taken)
        return TransferResult(done=tuple(done))


class ReleaseWorld(World):
    """Its workers release deferred deliveries. No key can sign before `signs_from`."""

    signs_from = -math.inf

    def _start(self, process: Process) -> None:
        super()._start(process)
        keys = SimpleNamespace(
            can_sign=lambda _iss, _alg: self.now >= self.signs_from,
            signatures_per_second=lambda _iss: 2000.0,
            kids=lambda _iss: (),
        )

        class Current:
            """The configuration of this worker."""

            settings = SimpleNamespace(issuers=(ISS,))
            registry = property(lambda _: process.registry)

        Current.keys = keys  # type: ignore[attr-defined]
        live = SimpleNamespace(current=Current(), take_route_changes=RouteChanges)

        @asynccontextmanager
        async def open_pass(read: Reader[Any], **_options: object) -> AsyncIterator[Pass]:
            yield Pass(self.broker, read)

        waiting = SimpleNamespace(open_pass=open_pass)
        queue = SimpleNamespace(worker_count=process.count, waiting=lambda: waiting)
        release = DeferralRelease(cast("Any", live), cast("Any", queue), self._loop.time, process.clock)
        releasing = self._loop.create_task(release.run(process.worker.scheduler, process.worker.delayed))
        assert process.running is not None
        process.running.add_done_callback(lambda _: releasing.cancel())

    async def prepare(self, delivery: Delivery, client: Client) -> PreparedRequest:
        """Sign, if a key can."""
        if self.now < self.signs_from:
            raise InternalFault(Cause.SIGNING, "no key")
        return await super().prepare(delivery, client)


def release_at_start(cause: Cause, workers: int, gap: float, seed: int) -> float:
    """The workers are replaced, one `gap` seconds after the other, when the cause of 50 deferrals has ended.

    Return the seconds from the last start until the last of them is sent.
    """
    began = 20.0
    known = client("x", paused=cause is Cause.PAUSED)
    with ReleaseWorld([known], workers=workers, announces=True, seed=seed) as world:
        if cause is Cause.SIGNING:
            world.signs_from = began
        for number in range(50):
            world.at(5 + number / 5, world.publish, ["x"])
        world.run(began)
        assert not world.tally.delivered["x"]
        world.registered = replace(world.registered, clients={ISS: {"x": client("x")}})
        for number in range(workers):
            world.at(began + number * gap, world.restart, number)
        started = began + (workers - 1) * gap
        world.run_until_done(started + 1200)
        return math.inf if world.tally.left else max(one.answered for one in world.tally.delivered["x"]) - started
