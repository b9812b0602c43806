"""Deadlines of requests."""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from notifier.model.client import TlsFiles
from notifier.model.errors import CancelledRequest, InternalFault
from notifier.model.outcome import Reason, TransportFailure
from notifier.model.request import Request
from notifier.network.http.client_contexts import TlsContexts
from notifier.network.http.transport import HttpTransport, RequestDeadline
from tests.network.http.http_requests import PLENTY, WRITTEN, asking, broken, opened, request
from tests.support import behaviours as do
from tests.support.certificates import authority
from tests.support.receivers import ScriptedReceiver, deaf_port, scripted

# ── Five kinds of requests that never finish: each ends at the deadline, on uvloop and on asyncio's loop ─────────────

# None ends before its deadline. How late one ends depends on the machine too, so it is measured where nothing
# else runs:
# against a bare timer for the same time, set on the same loop just before. In the best of five batches half of
# them are
# within a quarter of the deadline: an additional wait would show in each.
# There, a thousand of them, 200 at a time, must not leave a thread or a descriptor open.

DEADLINE = 1.0  # seconds
BATCH = 200
BATCHES = 5
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A URI at which a request never finishes; `ambiguous`: the request was written before (R3)."""

    uri: str
    ambiguous: bool
    tls: TlsFiles = field(default_factory=TlsFiles)


@dataclass(slots=True, kw_only=True)
class Ways:
    """The five, and the receivers that implement them."""

    by_name: dict[str, Way]
    receivers: list[ScriptedReceiver]

    async def all_closed(self) -> None:
        """Return once every connection is closed on the receivers' side too."""
        for receiver in self.receivers:
            await receiver.until(lambda receiver: receiver.open == 0)


def late(after: float) -> do.Behaviour:
    """Send a 200 `after` seconds after the request, unless the peer has disconnected."""

    async def run(peer: do.Peer) -> None:
        gone = asyncio.ensure_future(peer.gone())
        await asyncio.wait({gone}, timeout=after)
        gone.cancel()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    return do.Behaviour(run=run)


class Silent(asyncio.DatagramProtocol):
    """A name server that receives queries and never answers."""


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """Return a port of 127.0.0.1 that drops every SYN: its backlog is full, and nothing accepts."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(server.getsockname())
        yield server.getsockname()[1]


@contextlib.asynccontextmanager
async def five_ways(folder: Path, within: float = DEADLINE) -> AsyncIterator[Ways]:
    """Yield five ways in which a request times out, with their receivers. The last receiver answers after `within`."""
    ca = authority(folder)
    async with (
        scripted(do.hang(reads=False)) as mute,
        scripted(do.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b".", every=1.0)) as drip,
        scripted(late(within * 1.3)) as tardy,
    ):
        with black_hole() as hole:
            handshake = mute.url.replace("http:", "https:")
            yield Ways(
                by_name={
                    "hung name server": Way(uri="http://shop{n}.test/", ambiguous=False),
                    "black-hole address": Way(uri=f"http://127.0.0.1:{hole}/", ambiguous=False),
                    "endless TLS handshake": Way(uri=handshake, ambiguous=False, tls=TlsFiles(ca_file=ca.ca_file)),
                    "a byte a second": Way(uri=drip.url, ambiguous=True),
                    "answers after the deadline": Way(uri=tardy.url, ambiguous=True),
                },
                receivers=[mute, drip, tardy],
            )


async def timed(transport: HttpTransport, way: Way, number: int = 0, within: float = DEADLINE) -> float:
    """Return the seconds of one request, which must end as a timeout."""
    started = time.monotonic()
    wire = await transport.post(request(way.uri.format(n=number), within=within, tls=way.tls))
    took = time.monotonic() - started
    assert broken(wire) == (Reason.TIMEOUT, way.ambiguous), (way, wire)
    return took


async def bare_timer() -> float:
    """Return how long this loop takes now for a timer of DEADLINE."""
    started = time.monotonic()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE):
            await asyncio.get_running_loop().create_future()
    return time.monotonic() - started


def threads() -> int:
    """Count the threads of this process as the system does, including those of C libraries."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208  a count of names, on the loop


def descriptors() -> int:
    """Count open files and sockets of this process."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  a count of names, on the loop


async def until_descriptors(most: int) -> None:
    """Return once no more are open. A loop closes its sockets a round later, without a notification."""
    async with asyncio.timeout(PLENTY):
        while descriptors() > most:  # noqa: ASYNC110  see above
            await asyncio.sleep(0)


def on(loop: str, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it on that kind of loop."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(story())


@pytest.mark.parametrize("loop", [pytest.param("asyncio", marks=pytest.mark.full), "uvloop"])
def test_each_request_ends_at_the_deadline(loop: str, tmp_path: Path) -> None:
    """Name look-up, connection, handshake, body and a late answer: each is a timeout, and none before the deadline."""

    async def story() -> None:
        async with (
            asking(Silent) as resolver,
            opened(resolver) as transport,
            five_ways(tmp_path / "ca", WRITTEN) as ways,
        ):
            took = await asyncio.gather(*(timed(transport, way, within=WRITTEN) for way in ways.by_name.values()))
            early = {name: each for name, each in zip(ways.by_name, took, strict=True) if each < WRITTEN - 0.005}
            assert not early, f"ended before the deadline of {WRITTEN} s"
            await ways.all_closed()

    on(loop, story)


@pytest.mark.alone
@pytest.mark.parametrize("loop", LOOPS)
def test_thousand_timeouts_leak_no_thread_and_no_socket(loop: str, tmp_path: Path) -> None:
    """200 at a time, 40 of each kind. No descriptor is open that was closed before, also with pending look-ups.

    c-ares has one thread and one or two sockets for all look-ups together, however many are pending.
    """

    async def story() -> None:
        async with asking(Silent) as resolver, opened(resolver) as transport, five_ways(tmp_path / "ca") as ways:
            for way in ways.by_name.values():
                await transport.post(request(way.uri.format(n=0), within=0.05, tls=way.tls))  # all is built once
            await ways.all_closed()
            before, running = descriptors(), threads()
            late_by: list[float] = []
            for batch in range(BATCHES):
                tasks = [
                    asyncio.create_task(timed(transport, way, batch * BATCH + number))
                    for number in range(BATCH // len(ways.by_name))
                    for way in ways.by_name.values()
                ]
                control = asyncio.create_task(bare_timer())
                await asyncio.wait(tasks, timeout=DEADLINE / 2)
                assert threads() <= running
                took = await asyncio.wait_for(asyncio.gather(*tasks), PLENTY)
                late_by.append(statistics.median(took) - await control)
                await ways.all_closed()
            assert transport.open_connections == 0
            await until_descriptors(before + 1)  # c-ares may hold a second socket
            assert threads() <= running
            assert min(late_by) <= DEADLINE / 4, late_by

    on(loop, story)


@pytest.mark.alone
@pytest.mark.parametrize("loop", LOOPS)
def test_closing_leaves_no_descriptor(loop: str, tmp_path: Path) -> None:
    """Including what c-ares held."""

    async def once() -> None:
        async with asking(Silent) as resolver, opened(resolver) as transport, five_ways(tmp_path / "ca") as ways:
            await asyncio.gather(
                *(transport.post(request(way.uri, within=0.2, tls=way.tls)) for way in ways.by_name.values())
            )

    async def story() -> None:
        await once()  # the loop's own pipes are opened when first needed
        before = descriptors()
        await once()
        await until_descriptors(before)

    on(loop, story)


# ── The deadline of a request ends what is awaited, as `asyncio.timeout` would ────────────────────────


SOON = 0.001  # seconds


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


async def ending(work: Coroutine[Any, Any, str]) -> str:
    """Return the work's result, or the name of its error. Its task must not be left cancelled."""
    try:
        result = await work
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  each is one of the results
        result = type(error).__name__
    task = asyncio.current_task()
    assert task is not None
    return result if not task.cancelling() else f"{result}, and {task.cancelling()} cancellations are left"


@pytest.mark.parametrize("seconds", [SOON, 0.0, -1.0])
def test_deadline_raises_timeout_error(runner: asyncio.Runner, seconds: float) -> None:
    """At a deadline in the past too."""

    async def hang() -> str:
        with RequestDeadline(seconds):
            await asyncio.get_running_loop().create_future()
        return "ended"

    assert runner.run(ending(hang())) == "TimeoutError"


def test_finished_work_cancels_the_deadline(runner: asyncio.Runner) -> None:
    """The timer is cancelled: the task's next await continues past the deadline."""

    async def answer() -> str:
        loop = asyncio.get_running_loop()
        with RequestDeadline(SOON):
            pass
        later = loop.create_future()
        loop.call_later(3 * SOON, later.set_result, "answered")
        return str(await later)

    assert runner.run(ending(answer())) == "answered"


@pytest.mark.parametrize("first", ["answer", "deadline"])
def test_result_in_the_same_pass_as_the_deadline_is_too_late(runner: asyncio.Runner, first: str) -> None:
    """In either order: the task continues after both, and is not left cancelled."""

    async def both() -> str:
        loop = asyncio.get_running_loop()
        answered = loop.create_future()
        if first == "answer":
            loop.call_at(loop.time() + SOON, answered.set_result, "answered")
        with RequestDeadline(SOON):
            passed = loop.time() + SOON
            if first == "deadline":
                loop.call_at(passed + SOON / 10, answered.set_result, "answered")
            while loop.time() < passed + SOON:
                pass  # both timers are due now, so that one pass of the loop handles both
            return str(await answered)

    assert runner.run(ending(both())) == "TimeoutError"


@pytest.mark.parametrize("both", [False, True], ids=["alone", "with the deadline"])
def test_external_cancellation_is_no_timeout(runner: asyncio.Runner, both: bool) -> None:
    """A drain that cancels the task is no timeout, even in the same round of the event loop as the deadline."""

    async def cancelled() -> str:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        until = loop.time() + 2 * SOON
        loop.call_soon(task.cancel)
        with RequestDeadline(SOON if both else 60):
            while both and loop.time() < until:
                pass
            await loop.create_future()
        return "ended"

    assert runner.run(ending(cancelled())) == "CancelledError, and 1 cancellations are left"


def test_error_raised_on_cancellation_is_kept(runner: asyncio.Runner) -> None:
    """An error that a library raises on cancellation stays, and no timer of the deadline remains."""

    async def translated() -> str:
        with RequestDeadline(SOON):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                raise OSError("closed") from None
        return "ended"

    assert runner.run(ending(translated())) == "OSError"


# ── A cancelled request carries what its timeout would have meant ────────────────────────


@pytest.mark.parametrize("loop", LOOPS)
def test_a_cancelled_request_means_what_its_timeout_would(loop: str, tmp_path: Path) -> None:
    """A connection that was never established is not ambiguous, and a proxy that hangs is a fault of the proxy."""

    async def cancelled(transport: HttpTransport, sent: Request) -> tuple[Reason, bool]:
        began = asyncio.Event()
        task = asyncio.create_task(transport.post(replace(sent, on_begin=began.set)))
        if sent.uri.startswith("https:"):  # a busy machine may need longer for the system's authorities
            await began.wait()
        await asyncio.wait([task], timeout=WRITTEN / 4)
        task.cancel()
        with pytest.raises(CancelledRequest) as caught:
            await task
        assert isinstance(caught.value.meaning, TransportFailure)
        return broken(caught.value.meaning)

    async def story() -> None:
        async with asking(Silent) as resolver, opened(resolver) as transport, five_ways(tmp_path / "ca") as ways:
            proxied = request("https://shop.example/", proxy=ways.by_name["black-hole address"].uri.rstrip("/"))
            sent = [request(way.uri.format(n=0), tls=way.tls) for way in list(ways.by_name.values())[:4]]
            ends = await asyncio.gather(*(cancelled(transport, each) for each in [*sent, proxied]))
            wanted = [(Reason.TIMEOUT, way.ambiguous) for way in list(ways.by_name.values())[:4]]
            assert ends == [*wanted, (Reason.PROXY, False)]

    on(loop, story)


@pytest.mark.parametrize("via", ["directly", "by proxy"])
async def test_the_clients_time_begins_after_tls_files_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, via: str
) -> None:
    """So that a slow disk is not charged to the client. A request that ends before has an internal fault."""
    order, files_are_read = list[str](), asyncio.Event()
    read = TlsContexts.context

    async def read_late(contexts: TlsContexts, files: TlsFiles) -> ssl.SSLContext:
        await files_are_read.wait()
        order.append("files")
        return await read(contexts, files)

    monkeypatch.setattr(TlsContexts, "context", read_late)
    async with opened() as transport, deaf_port() as port:
        sent = request(f"https://127.0.0.1:{port}/", tls=TlsFiles(ca_file=authority(tmp_path).ca_file))
        if via == "by proxy":
            sent = request("http://shop.example/", proxy=f"https://127.0.0.1:{port}")
        sent = replace(sent, on_begin=lambda: order.append("begin"))
        early = asyncio.create_task(transport.post(sent))
        await asyncio.sleep(0)
        early.cancel()
        with pytest.raises(CancelledRequest) as caught:
            await early
        assert (isinstance(caught.value.meaning, InternalFault), order) == (True, [])
        files_are_read.set()
        reason = Reason.CONNECT if via == "directly" else Reason.PROXY
        assert broken(await transport.post(sent)) == (reason, False)
    assert order == ["files", "begin"]
