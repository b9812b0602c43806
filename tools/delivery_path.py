"""Lists the code that one delivery passes through: `python -m tools.delivery_path [--functions]`.

A worker on a private RabbitMQ delivers an event whose client answers 503 once and 403 to the retry, so that the
delivery fails, returns from the delay queues, and becomes a dead letter. Each function of `notifier` that runs for it
is traced by `sys.setprofile`, from the event's arrival until the dead letter is confirmed, and grouped by room: the
folders of docs/architecture.md. Functions that a worker without deliveries runs, such as timers, are left out.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType

import aio_pika
from aiohttp import web

import notifier
from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.delivery.facts import DeadLettered, Fact, LogoutDelivered
from notifier.features import FEATURES
from notifier.model.client import Algorithm
from notifier.service.service import Service
from notifier.telemetry import log_output
from notifier.tokens.key_files import generate_key
from tests.support.rabbitmq_node import rabbitmq_node
from tests.system.loopback import LoopbackServer

PACKAGE = Path(notifier.__file__).parent
ISSUER = "https://id.example.com"
IDLE_SECONDS = 2.0  # as long as the delivery takes: its retry follows after a second
LIMIT_SECONDS = 30.0
Functions = Mapping[str, set[str]]
"""The names of functions, by the path of their module in `notifier`."""


@contextmanager
def tracing(codes: set[CodeType]) -> Iterator[None]:
    """Collect the code of each function of `notifier` that this thread runs meanwhile."""

    def on_event(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code not in codes and frame.f_code.co_filename.startswith(str(PACKAGE)):
            codes.add(frame.f_code)

    sys.setprofile(on_event)
    try:
        yield
    finally:
        sys.setprofile(None)


def by_module(codes: set[CodeType]) -> Functions:
    """Return the functions by module, without comprehensions and the like."""
    functions = defaultdict[str, set[str]](set)
    for code in codes:
        if not code.co_name.startswith("<") or code.co_name == "<lambda>":
            functions[str(Path(code.co_filename).relative_to(PACKAGE))].add(code.co_qualname)
    return functions


def by_room(functions: Functions) -> dict[str, tuple[int, int]]:
    """Return the numbers of files and functions of each room, the most files first."""
    counts = defaultdict[str, list[int]](lambda: [0, 0])
    for module, names in functions.items():
        room = "/".join(Path(module).parent.parts[: 2 if module.startswith("features/") else 1])
        counts[room][0] += 1
        counts[room][1] += len(names)
    return {room: (files, names) for room, (files, names) in sorted(counts.items(), key=lambda row: (-row[1][0], row))}


class Ends:
    """An observer: waits for the first fact of each type."""

    def __init__(self) -> None:
        self._ended = defaultdict[type[Fact], asyncio.Event](asyncio.Event)

    def observe(self, fact: Fact) -> None:
        """Record the fact."""
        self._ended[type(fact)].set()

    async def wait_for(self, kind: type[Fact]) -> None:
        """Return when a fact of this type was observed."""
        async with asyncio.timeout(LIMIT_SECONDS):
            await self._ended[kind].wait()


async def trace_delivery(url: str, folder: Path, prefix: str = "notifier") -> set[CodeType]:
    """Run a worker, and return the code that one failing delivery passes through."""
    statuses = iter((200, 503, 403))  # the first is for an event that is not traced: it makes the connections

    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(status=next(statuses))

    ends, stop, codes, idle = Ends(), asyncio.Event(), set[CodeType](), set[CodeType]()
    async with LoopbackServer(answer) as client, await aio_pika.connect(url) as connection:
        service = _build_service(url, prefix, folder, client.base, ends)
        running = asyncio.create_task(service.serve(stop))
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        await _publish(channel, prefix, "first")
        await ends.wait_for(LogoutDelivered)
        await asyncio.sleep(IDLE_SECONDS)
        with tracing(idle):
            await asyncio.sleep(IDLE_SECONDS)
        with tracing(codes):
            await _publish(channel, prefix, "traced")
            await ends.wait_for(DeadLettered)
            await asyncio.sleep(0.1)  # the ack is sent
        stop.set()
        await running
    return codes - idle


def _build_service(url: str, prefix: str, folder: Path, client: str, ends: Ends) -> Service:
    """Build a worker with one client, as `notifier run` does."""
    (folder / "key.pem").write_bytes(generate_key(Algorithm.ES256))
    address = {"client_id": "shop", "backchannel_logout_uri": client, "id_token_signed_response_alg": "ES256"}
    (folder / "clients.json").write_text(json.dumps([address]))
    settings = {
        "queue": {"url": url, "prefix": prefix}, "issuers": {ISSUER: {"keys": [{"file": "key.pem"}]}},
        "delivery": {"retry": {"base": "1s"}}, "egress": {"allow": ["127.0.0.0/8"], "allow_http": True},
        "registry": {"file": "clients.json"}, "ops": {"listen": "127.0.0.1:0"},
    }  # fmt: skip
    file = folder / "notifier.yaml"
    file.write_text(json.dumps(settings))
    log_output.configure("error", "json")
    return Service(LiveConfiguration(file, {}, load(file, {}, FEATURES)), observers=[ends.observe])


async def _publish(channel: aio_pika.abc.AbstractChannel, prefix: str, id_: str) -> None:
    """Publish an event once the exchange exists."""
    event = {"id": id_, "iss": ISSUER, "sub": "alice", "sid": id_, "clients": ["shop"]}
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            try:
                exchange = await channel.get_exchange(f"{prefix}.events")
                await exchange.publish(aio_pika.Message(json.dumps(event).encode()), "session.ended")
            except aio_pika.exceptions.ChannelNotFoundEntity:
                await asyncio.sleep(0.1)
                await channel.reopen()
            else:
                return


def format_table(functions: Functions, *, names: bool) -> Iterator[str]:
    """Yield the lines of the table by room, and those of the functions if `names`."""
    yield "files functions room"
    for room, (files, count) in by_room(functions).items():
        yield f"{files:5} {count:9} {room}"
    yield f"{len(functions):5} {sum(map(len, functions.values())):9} in all"
    for module, found in sorted(functions.items()) if names else ():
        yield f"{module}: {', '.join(sorted(found))}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Trace one delivery and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.delivery_path", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--functions", action="store_true", help="also print the functions of each file")
    given = parser.parse_args(arguments)
    with rabbitmq_node() as node, tempfile.TemporaryDirectory() as folder:
        functions = by_module(asyncio.run(trace_delivery(node.url, Path(folder))))
    sys.stdout.writelines(f"{line}\n" for line in format_table(functions, names=given.functions))


if __name__ == "__main__":
    main()
