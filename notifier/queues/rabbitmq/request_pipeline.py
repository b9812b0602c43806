"""Sends many requests to the broker at once, over a few channels, and returns the answer to each.

aiormq awaits the answer to a request before it sends the next on that channel, so that 86 queues took 172 round trips.
The broker handles the requests of a channel in order. At an error it closes the channel and ignores the later requests,
which are then sent again on a new channel.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiormq
from aiormq.abc import ChannelFrame
from aiormq.exceptions import ChannelClosed
from pamqp.base import Frame

from notifier.model.shared_resources import shared_bound
from notifier.queues.rabbitmq.connection import (
    DEFAULT_CHANNEL_MAX,
    Connection,
    open_channel,
    request_close,
    translating_losses,
    underlay_of,
)
from notifier.queues.rabbitmq.wire.aiormq_hooks import is_installed

MAX_CHANNELS = shared_bound(8)  # without errors one would do; each missing queue costs its channel two round trips

Answer = Frame | ChannelClosed
"""The broker's answer, or the error for which it closed the channel."""


class RequestPipeline:
    """Sends requests over one connection, for one task at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._opened: list[aiormq.Channel] = []
        self._idle: list[aiormq.Channel] = []

    async def send(self, requests: Sequence[Sequence[Frame]]) -> list[Answer]:
        """Send all requests at once. Return the last answer to each; an error skips the rest of its request.

        Raises aiormq's errors or QueueUnavailable if the connection is lost.
        """
        answers: dict[int, Answer] = {}
        underlay = underlay_of(self._connection)
        free = (underlay.connection_tune.channel_max or DEFAULT_CHANNEL_MAX) - len(underlay.channels)
        # Half of the free channels remain for others.
        channels = max(1, min(MAX_CHANNELS, len(requests), len(self._idle) + free // 2))
        shares = (range(first, len(requests), channels) for first in range(channels))
        await run_together(self._send_share(requests, share, answers) for share in shares)
        return [answers[number] for number in range(len(requests))]

    async def _send_share(
        self, requests: Sequence[Sequence[Frame]], share: Sequence[int], answers: dict[int, Answer]
    ) -> None:
        while share:
            if self._idle:
                channel = self._idle.pop()
            else:
                self._opened.append(channel := await open_channel(self._connection))
            frames = [(number, frame) for number in share for frame in requests[number]]
            answered, error = await _exchange(channel, [frame for _, frame in frames])
            answers.update((number, answer) for (number, _), answer in zip(frames, answered, strict=False))
            if error is None:
                self._idle.append(channel)
                return
            failed, _ = frames[len(answered)]
            answers[failed] = error
            share = share[share.index(failed) + 1 :]

    def close(self) -> None:
        """Close the channels, without a wait for the broker."""
        for channel in self._opened:
            if not channel.is_closed:
                request_close(channel)


@asynccontextmanager
async def pipelined(connection: Connection) -> AsyncIterator[RequestPipeline]:
    """Send requests in the block over channels that are closed at its end."""
    pipeline = RequestPipeline(connection)
    try:
        yield pipeline
    finally:
        pipeline.close()


async def _exchange(channel: aiormq.Channel, frames: Sequence[Frame]) -> tuple[list[Frame], ChannelClosed | None]:
    """Send the frames; return the answers, and the error after the last of them if the broker closed the channel."""
    answers: list[Any] = []

    async def exchange() -> None:
        if not is_installed("messages"):
            for frame in frames:
                answers.append(await channel.rpc(frame))  # noqa: PERF401  those before an error count
            return
        async with channel.lock:
            await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))
            while len(answers) < len(frames):
                answers.append(await channel.rpc_frames.get())

    try:
        with translating_losses():
            await channel.create_task(exchange())
    except ChannelClosed as error:
        while not channel.rpc_frames.empty():
            answers.append(channel.rpc_frames.get_nowait())
        return answers, error
    return answers, None


async def run_together(works: Iterable[Coroutine[object, object, None]]) -> None:
    """Run these at once. The first error ends the others, and is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
