"""The demo's clients and sign-outs as long-running processes, for deploy/compose.yaml.

    python -m notifier.demo.processes clients --jwks jwks.json --only shop
    python -m notifier.demo.processes sign-outs -c notifier.yaml

Each client has its port: 9001 shop, 9002 reports, 9003 forum, 9004 payroll, 9005 museum, where nobody listens.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvloop

from notifier.demo.bookkeeping import SignOut
from notifier.demo.receivers import SAMPLE_BEHAVIOURS, Receiver
from notifier.demo.story import ISS, event_of
from notifier.demo.token_check import TokenCheck
from notifier.model.errors import QueueError
from notifier.model.message import Lane
from notifier.queues.building import build_queue
from notifier.queues.queue_port import Queue
from notifier.settings.config_file import read_sections

FIRST_PORT = 9001
SLOW_ANSWER_SECONDS = 0.6
RETRY_SECONDS = 1.0  # until an unconfirmed event is published again


async def serve_clients(jwks: Mapping[str, Any], host: str, first_port: int, only: Sequence[str]) -> None:
    """Run the sample clients in `only` until SIGTERM or SIGINT; all five if `only` is empty."""
    async with AsyncExitStack() as stack:
        for number, (client_id, kind) in enumerate(SAMPLE_BEHAVIOURS.items()):
            if client_id in (only or SAMPLE_BEHAVIOURS):
                check = TokenCheck(iss=ISS, client_id=client_id, alg="RS256", jwks=jwks, clock=time.time)
                place = host, first_port + number
                receiver = Receiver(
                    client_id=client_id, kind=kind, check=check, clock=time.time, pause=SLOW_ANSWER_SECONDS, place=place
                )
                await stack.enter_async_context(receiver.listen())
                _print(f"{client_id} ({kind.value}) is at {receiver.backchannel_logout_uri}")
        await _wait_for_signal()


async def sign_out(config: Path, every: float) -> None:
    """Sign a user out of all five clients at regular intervals, until SIGTERM or SIGINT."""
    queue = build_queue(read_sections(config, os.environ, {"queue"}).settings.queue)
    await queue.open()
    try:
        await queue.wait_until_ready()
        _print(f"a user signs out every {every} s")
        publishing = asyncio.ensure_future(_sign_outs(queue, every))
        await _wait_for_signal()
        publishing.cancel()
    finally:
        await queue.close()


async def _sign_outs(queue: Queue, every: float) -> None:
    event = _event()
    while True:
        if await _try_publish(queue, event):
            event = _event()
            await asyncio.sleep(every)
        else:
            await asyncio.sleep(RETRY_SECONDS)


def _event() -> Mapping[str, object]:
    sign_out = SignOut(event_id=str(uuid4()), sid=uuid4().hex, at=time.time())
    return event_of(sign_out, f"user-{uuid4().hex[:4]}", list(SAMPLE_BEHAVIOURS))


async def _try_publish(queue: Queue, event: Mapping[str, object]) -> bool:
    """Publish an event. Return False if it was not confirmed; the caller sends it again with the same id."""
    try:
        await queue.send_event(Lane.EVENTS, json.dumps(event).encode(), message_id=str(event["id"]))
    except QueueError as error:
        _print(f"not confirmed yet: {error}")
        return False
    return True


async def _wait_for_signal() -> None:
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    await ending.wait()


def _print(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the clients or the sign-outs, as the arguments select."""
    parser = argparse.ArgumentParser(
        prog="python -m notifier.demo.processes", description=(__doc__ or "").splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    clients = commands.add_parser("clients", help="the sample clients, which verify every token")
    clients.add_argument(
        "--jwks", type=Path, required=True, help="the keys of the issuer, as `notifier keys jwks` prints"
    )
    clients.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    clients.add_argument("--first-port", type=int, default=FIRST_PORT, help="of shop; the others follow (%(default)s)")
    clients.add_argument("--only", action="append", default=[], choices=list(SAMPLE_BEHAVIOURS), help="may be repeated")
    sign_outs = commands.add_parser("sign-outs", help="a user signs out of all five, again and again")
    sign_outs.add_argument(
        "-c", "--config", type=Path, required=True, help="where the queue is, as the workers have it"
    )
    sign_outs.add_argument("--every", type=float, default=0.5, help="seconds between two (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.command == "clients":
        jwks = json.loads(options.jwks.read_text())
        uvloop.run(serve_clients(jwks, options.host, options.first_port, options.only))
    else:
        uvloop.run(sign_out(options.config, options.every))


if __name__ == "__main__":
    main()
