"""Measures goals for given seeds, in as many processes as are wanted."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context, parent_process

from tests.simulator.case import Case
from tests.simulator.cases import every


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A goal measured for one seed."""

    goal: str
    seed: int
    ok: bool
    text: str
    cpu_seconds: float


@cache
def _cases() -> dict[str, Case]:
    return {case.name: case for case in every()}


def measure_draw(goal: str, seed: int) -> Draw:
    """Measure the goal of this name."""
    began = time.process_time()
    found = _cases()[goal].measure(seed)
    spent = round(time.process_time() - began, 2)
    return Draw(goal=goal, seed=seed, ok=bool(found.ok), text=found.text, cpu_seconds=spent)


def measure_draws(next_draw: Callable[[], tuple[str, int] | None], processes: int, niceness: int = 0) -> Iterator[Draw]:
    """Yield the results as they come. `next_draw` returns a goal and a seed when a process is free, None at the end."""
    with ProcessPoolExecutor(processes, get_context("spawn"), _start_process, (niceness,)) as pool:
        running: set[Future[Draw]] = set()
        while True:
            while len(running) < processes and (draw := next_draw()) is not None:
                running.add(pool.submit(measure_draw, *draw))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def _start_process(niceness: int) -> None:
    """Lower the priority of a process of the pool, and end it with its parent, however that ends."""
    os.nice(niceness)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
