"""Tells where a worker's processor time goes: it looks at the stack at every 4 ms of processor time.

    python -m benchmarks.stages FILE run -c notifier.yaml

runs `notifier run -c notifier.yaml` so, and writes the counts to FILE whenever it gets SIGUSR2. A look costs about
10 µs. It is made between two bytecodes, so what C code uses counts for the Python frame that called it. What happens
before the event loop runs is left out.
"""

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import FrameType

EVERY = 0.004  # seconds of processor time; Linux's clock tick allows no less

# By what a file's path holds, first match first; a stack belongs to its innermost frame that has a stage.
STAGES = (
    ("queue", ("/notifier/queues/rabbitmq/", "/notifier/queues/sqlite/", "/aio_pika/", "/aiormq/",
               "/pamqp/")),
    ("mint", ("/notifier/tokens/", "/notifier/features/key_places/", "/notifier/delivery/channels", "/jwt/",
               "/cryptography/")),
    ("post", ("/notifier/network/http/", "/aiohttp/", "/yarl/", "/multidict/")),
    ("log", ("/notifier/telemetry/log", "/structlog/")),
    ("metrics", ("/notifier/telemetry/metrics", "/notifier/telemetry/client_series",
                 "/prometheus_client/")),
    ("read", ("/notifier/delivery/intake", "/notifier/model/documents/event_",
              "/notifier/delivery/event_clients", "/notifier/model/documents/cloudevents",
              "/notifier/model/session_ended")),
    ("deliver", ("/notifier/delivery/", "/notifier/model/", "/notifier/service/", "/benchmarks/ceiling")),
)  # fmt: skip
NAMES = (*(name for name, _ in STAGES), "loop")


@lru_cache(maxsize=4096)
def stage_of(path: str) -> str | None:
    """The stage of a source file; None if it serves all stages."""
    return next((name for name, parts in STAGES if any(part in path for part in parts)), None)


class Looks:
    """Counts the looks at the running stack, by stage."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def begin(self) -> None:
        """Begin to look."""
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)

    def counts(self) -> dict[str, int]:
        """The counts so far."""
        return {name: self._counts[name] for name in NAMES}

    def _look(self, _number: int, frame: FrameType | None) -> None:
        found, looping = None, False
        while frame is not None:
            path = frame.f_code.co_filename
            if found is None:
                found = stage_of(path)
            looping = looping or "/uvloop/" in path
            frame = frame.f_back
        if looping:
            self._counts[found or "loop"] += 1


def costs(counts: Mapping[str, int], cpu: float) -> dict[str, float]:
    """Split the processor time of a delivery among the stages."""
    looks = sum(counts.values())
    return {name: cpu * count / looks for name, count in counts.items()} if looks else {}


def main() -> None:
    """Run notifier, and look at its stages."""
    from notifier.cli import main as notifier  # noqa: PLC0415  its start is part of what runs here

    file = Path(sys.argv[1])
    sys.argv[:2] = ["notifier"]
    looks = Looks()

    def tell(_number: int, _frame: FrameType | None) -> None:
        part = file.with_suffix(".part")
        part.write_text(json.dumps(looks.counts()))
        os.replace(part, file)  # noqa: PTH105  whole or not at all

    signal.signal(signal.SIGUSR2, tell)
    looks.begin()
    notifier()


if __name__ == "__main__":
    main()
