"""Counts what a delivery costs a worker: calls of Python functions, and bytecode instructions. No clock, no noise.

    python -m benchmarks.counted                   # exit 1 if a case costs over 1 % more than its record, or has none
    python -m benchmarks.counted --by one-client   # by function
    python -m benchmarks.counted --record          # replace the record of this Python version

Each case delivers twice, and the difference is counted, so that neither a start nor a first delivery counts. Timers due
within 10 s of virtual time have fired by then, so that deferred work counts. The code of C libraries, of the event loop
and of the publishing channel does not count. Each minor version of Python has different instructions, and so a record.
"""

import argparse
import asyncio
import gc
import json
import sys
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from benchmarks.counted_service import ISSUER, Answers, answer, built_service, deliver, deliver_rows, fill, frames
from notifier.delivery.facts import FactHandlers
from notifier.feature import Feature, FeatureRuntime
from notifier.service.service import Service
from tests.simulator.virtual_time import VirtualLoop

RECORD = Path(__file__).with_name("counted.json")
WARM, FEW, MANY = 600, 20, 100  # deliveries
COUNTED = (10, FEW, MANY)  # the first is not used: Python 3.12 instruments code when it is first traced
MAX_GROWTH = 1.01
PERIOD_SECONDS = 60.0  # each round begins with one
UNCOUNTED = ("benchmarks/", "unittest/", "simulator/", "asyncio/base_events", "asyncio/events")

OK, FAILED = answer(200), answer(503)
Counts = Counter[tuple[str, CodeType]]
Table = dict[str, list[float]]
"""Calls and instructions of a delivery, by function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is delivered. `answers` makes the clients' answers. Each event names `fan_out` of the clients."""

    clients: int = 10
    fan_out: int = 1
    warm: int = WARM
    pause: float = 0.0
    answers: Callable[[], Answers] = lambda: lambda _path, _now: OK
    sqlite: bool = False
    source: str | None = None
    features: tuple[Feature, ...] = ()

    def bodies(self, deliveries: int, id_: str) -> list[bytes]:
        """Return the events of so many deliveries."""
        return [self._body(number, f"{id_}-{number:030x}") for number in range(deliveries // self.fan_out)]

    def _body(self, number: int, id_: str) -> bytes:
        user = f"user-{number:012x}"
        apps = [f"client-{(number + each) % self.clients}" for each in range(self.fan_out)]
        event = {"id": id_, "iss": ISSUER, "sub": user, "sid": id_, "clients": apps}
        document = {"id": id_, "user": {"id": user}, "apps": apps} if self.source else event
        return json.dumps(document, separators=(",", ":")).encode()


def fail_once() -> Answers:
    """Have the first attempt of each delivery fail. Its token names the session, and each event has its own."""
    seen: set[str] = set()

    def answers(request: bytes, _now: float) -> bytes:
        payload = request.rsplit(b"logout_token=", 1)[-1].split(b".")[1]
        session = json.loads(urlsafe_b64decode(payload + b"=="))["sid"]
        failed = session in seen
        seen.add(session)
        return OK if failed else FAILED

    return answers


def down_for_a_while() -> Answers:
    """Have all clients fail in the first four seconds of each period, so that deliveries are parked and fetched."""
    return lambda _request, now: FAILED if (now + 1e-3) % PERIOD_SECONDS < 4 else OK


CASES = {
    "one-client": Case(),
    "ten-clients": Case(fan_out=10),
    "fails-once": Case(answers=fail_once, pause=0.02),
    "client-down": Case(clients=1, answers=down_for_a_while, warm=200),
    "sqlite": Case(sqlite=True),
    "source": Case(source="own"),
    "2000-clients": Case(clients=2000, warm=2000),
    "idle-feature": Case(features=(Feature(name="idle", run=lambda _: FeatureRuntime(observe=FactHandlers({}))),)),
}


@cache
def _is_counted(path: str) -> bool:
    return not any(part in path for part in UNCOUNTED)


@contextmanager
def counting(counts: Counts) -> Iterator[None]:
    """Count what is done inside. A coroutine that goes on is a call, too."""

    def enter(entered: FrameType, _event: str, _: object) -> Any:
        path = entered.f_code.co_filename
        if not _is_counted(path):
            return None
        counts["calls", entered.f_code] += 1
        entered.f_trace_opcodes, entered.f_trace_lines = True, False
        return step

    def step(entered: FrameType, event: str, _: object) -> Any:
        if event == "opcode":
            counts["instructions", entered.f_code] += 1
        return step

    gc.collect()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(None)


async def _deliveries(service: Service, case: Case, got: dict[int, Counts]) -> None:
    await service._transport.open()  # the listeners are not opened
    if case.sqlite:
        await service.queue.open()
        await service.queue.consume(service.worker)
    running = asyncio.create_task(service.worker.run())
    for round_, deliveries in enumerate((case.warm, *COUNTED)):
        bodies, counts = case.bodies(deliveries, str(round_)), Counter[tuple[str, CodeType]]()
        got[deliveries] = counts
        received = frames(bodies)
        if case.sqlite:
            await fill(service, bodies)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(PERIOD_SECONDS - loop.time() % PERIOD_SECONDS)
        with counting(counts) if round_ else nullcontext():
            if case.sqlite:
                await deliver_rows(service)
            elif (acked := await deliver(service, received, source=case.source, pause=case.pause)) != len(bodies):
                raise AssertionError(f"{acked} of {len(bodies)} events were acked")
    service.worker.stop()
    await running


def count(case: Case) -> Table:
    """Return what a delivery costs, by function."""
    got: dict[int, Counts] = {}
    loop, delivered, answers = VirtualLoop(), Counter[bytes](), case.answers()

    def answered(request: bytes, now: float) -> bytes:
        delivered[sent := answers(request, now)] += 1
        return sent

    names = [f"client-{number}" for number in range(case.clients)]
    with built_service(loop, answered, names, sqlite=case.sqlite, more=case.features) as service:
        loop.run_until_complete(_deliveries(service, case, got))
    if delivered[OK] != (expected := case.warm + sum(COUNTED)):
        raise AssertionError(f"{delivered[OK]} of {expected} deliveries succeeded")
    table: Table = {}
    for unit, code in got[MANY]:
        path = "/".join(Path(code.co_filename).parts[-3:])
        row = table.setdefault(f"{path}:{code.co_qualname}", [0.0, 0.0])
        row[unit == "instructions"] += (got[MANY][unit, code] - got[FEW][unit, code]) / (MANY - FEW)
    return table


def main() -> int:
    """Print the counts. Return 1 if a count is above its record, or has none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counted", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--by", metavar="CASE", choices=CASES, help="print the functions of one case")
    parser.add_argument("--record", action="store_true", help="replace the record of this Python version")
    given, python = parser.parse_args(), "{}.{}".format(*sys.version_info)
    if given.by:
        for name, (calls, instructions) in sorted(count(CASES[given.by]).items(), key=lambda row: -row[1][1]):
            sys.stdout.write(f"{calls:8.2f} {instructions:9.2f} {name}\n")
        return 0
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    now = {
        name: [round(sum(column), 1) for column in zip(*count(case).values(), strict=True)]
        for name, case in CASES.items()
    }
    failed = False
    for name, counts in now.items():
        before = record.get(python, {}).get(name)
        grown = before is None or any(new > MAX_GROWTH * old for new, old in zip(counts, before, strict=True))
        failed |= grown
        text = "no record" if before is None else f"recorded {before[0]:.1f}, {before[1]:.1f}"
        sys.stdout.write(
            f"{name:13} {counts[0]:7.1f} calls {counts[1]:9.1f} instructions; {text}{' FAILED' if grown else ''}\n"
        )
    if given.record:
        RECORD.write_text(json.dumps(record | {python: now}, indent=1) + "\n")
    elif set(now) - set(record.get(python, {})):
        sys.stdout.write(f"make bench-counted ARGS=--record writes the record that Python {python} lacks\n")
    return int(failed and not given.record)


if __name__ == "__main__":
    sys.exit(main())
