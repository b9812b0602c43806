"""Applies small faults to `notifier`, one at a time, and reports the share of them that its tests catch.

    python -m tools.mutations [--jobs 1] [--only 'notifier/queues/*'] [--json build/mutations.json] [--record]

`tools/mutations.json` has the faults, each a line of a file and what replaces it, spread over the rooms by their size.
A fault is caught if a test of the folders that concern its module fails or exceeds the time limit; its own room runs
first. Each runs in a copy of the tree. Results are kept in the file of `--json`, from which the next run goes on.
A fault whose line is missing, or there twice, does not apply any more and is reported: write another for its room.
`--record` notes the share in `tools/mutations.json`; it must not fall.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from queue import Queue
from threading import Lock
from typing import Any

from tests.support.absent_features import copy_tree
from tools.parts import elsewhere, read_parts

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).with_suffix(".json")
LIMIT_FACTOR, LIMIT_MORE = 3, 60.0  # a run may take three times as long as without a fault, and a minute more
CONCERNED: Mapping[str, tuple[str, str]] = {
    "cli": ("tests/cli", "tests/settings tests/tokens"),
    "configuration": (
        "tests/configuration tests/cli",
        "tests/features/registries tests/operators",
    ),
    "delivery": ("tests/delivery tests/messages", "tests/simulator"),
    "messages": ("tests/messages tests/delivery", "tests/simulator"),
    "features/browsers": ("tests/features/browsers", ""),
    "features/console": ("tests/features/console", ""),
    "features/feed": ("tests/features/feed", ""),
    "features/signers": ("tests/features/signers", "tests/tokens"),
    "features/registries": ("tests/features/registries", "tests/configuration"),
    "features/sources": ("tests/features/sources", "tests/publishing"),
    "features/upstreams": ("tests/features/upstreams", ""),
    "model": (
        "tests/model tests/publishing",
        "tests/delivery tests/messages tests/operators tests/features/browsers tests/queues",
    ),
    "network/databases": ("tests/features/registries", ""),
    "network": ("tests/network", "tests/publishing tests/features/registries"),
    "operators/doctor": ("tests/operators/doctor", "tests/cli"),
    "operators/deliveries": (
        "tests/operators/deliveries",
        "tests/contract tests/features/console",
    ),
    "operators/status": ("tests/operators/status", "tests/features/console"),
    "operators/terminal": ("tests/operators/terminal tests/cli", "tests/operators"),
    "publishing": ("tests/publishing", "tests/system/test_events.py tests/system/test_waiting_for_fates.py"),
    "queues/rabbitmq": ("tests/queues", "tests/contract"),
    "queues/sqlite": ("tests/queues/sqlite", "tests/contract -k sqlite"),
    "queues": ("tests/queues", "tests/operators/doctor"),
    "service": ("tests/service tests/operators", "tests/system"),
    "settings": ("tests/settings tests/cli", "tests/operators/doctor tests/configuration tests/features/sources"),
    "telemetry": ("tests/telemetry", "tests/system"),
    "tokens": ("tests/tokens", "tests/features/signers tests/network tests/delivery"),
}
"""By room: what runs first, and what then runs if that has not caught the fault."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A fault: `line` of `file`, without its indentation, becomes `new`."""

    file: str
    line: str
    new: str

    @property
    def key(self) -> str:
        """Return its name in the results."""
        return f"{self.file}: {self.line} -> {self.new}"

    def applied(self, text: str) -> str | None:
        """Return the text of the file with the fault; None if the line is not there once."""
        lines = text.split("\n")
        found = [number for number, line in enumerate(lines) if line.strip() == self.line]
        if len(found) != 1:
            return None
        old = lines[found[0]]
        lines[found[0]] = old.replace(self.line, self.new)
        return "\n".join(lines)

    @property
    def stages(self) -> Sequence[str]:
        """Return the tests that concern it, by stage."""
        room = next(room for room in CONCERNED if self.file.startswith(f"notifier/{room}/"))
        return [stage for stage in CONCERNED[room] if stage]


def mutations() -> list[Mutation]:
    """Return all faults."""
    return [Mutation(*each) for each in json.loads(DATA.read_text())["mutations"]]


class Runner:
    """Runs tests in copies of the tree, and keeps the results."""

    def __init__(self, results: Path, copies: Sequence[Path]) -> None:
        self._file = results
        self._copies: Queue[Path] = Queue()
        self._measuring = Lock()
        for place in copies:
            copy_tree(place)
            self._copies.put(place)
        self.results: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}

    def examine(self, mutation: Mutation) -> None:
        """Find out whether the tests catch it."""
        place = self._copies.get()
        try:
            self._keep(mutation.key, self._examined(place, mutation))
        finally:
            self._copies.put(place)

    def _examined(self, place: Path, mutation: Mutation) -> str:
        path = place / mutation.file
        text = mutation.applied(path.read_text()) if path.exists() else None
        if text is None:
            return "gone"
        limits = {stage: LIMIT_FACTOR * self._seconds(place, stage) + LIMIT_MORE for stage in mutation.stages}
        try:
            path.write_text(text)
            for stage in mutation.stages:
                if self._tests(place, stage, limits[stage]) != 0:
                    return f"caught by {stage.split()[0]}"
        finally:
            shutil.copy2(ROOT / mutation.file, path)  # with its time, so that what is compiled counts again
        return "survived"

    def _seconds(self, place: Path, stage: str) -> float:
        """Return how long the tests of a stage take without a fault. Raises RuntimeError if they fail."""
        with self._measuring:
            if (name := f"seconds of {stage}") not in self.results:
                began = time.monotonic()
                if (done := self._tests(place, stage, None)) != 0:
                    raise RuntimeError(f"without a fault, these tests end with {done}: {stage}")
                self._keep(name, round(time.monotonic() - began, 1))
            return float(self.results[name])

    @staticmethod
    def _tests(place: Path, stage: str, limit: float | None) -> int | str:
        """Return the exit status; "late" if it took too long."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        environ |= {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
        words = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not full and not alone", "-p", "no:cacheprovider"]
        with subprocess.Popen(
            [*words, *stage.split(), *elsewhere(read_parts())], cwd=place, env=environ, stdout=subprocess.DEVNULL
        ) as process:
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                process.terminate()  # pytest ends what its fixtures have started
                try:
                    process.wait(LIMIT_MORE)
                except subprocess.TimeoutExpired:
                    process.kill()
                return "late"

    def _keep(self, key: str, result: object) -> None:
        self.results[key] = result
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(self.results, indent=1, ensure_ascii=False) + "\n")
        part.replace(self._file)


def report(chosen: Sequence[Mutation], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts, and the faults that no test catches or that do not apply any more."""
    found = {each: str(results[each.key]).split()[0] for each in chosen if each.key in results}
    counts = Counter(found.values())
    examined = counts["caught"] + counts["survived"]
    return {
        "examined": examined,
        "caught": counts["caught"],
        "share": round(counts["caught"] / examined, 3) if examined else None,
        "survived": [each.key for each, result in found.items() if result == "survived"],
        "gone": [each.key for each, result in found.items() if result == "gone"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults without a result; return 1 if the share is below the record or a fault does not apply any more."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutations", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="copies of the tree in which tests run at a time")
    parser.add_argument("--only", default="*", help="a pattern of the files whose faults are tried")
    parser.add_argument("--json", type=Path, default=ROOT / "build/mutations.json", help="where results are kept")
    parser.add_argument("--record", action="store_true", help="note the share in tools/mutations.json")
    given = parser.parse_args(arguments)
    chosen = [each for each in mutations() if fnmatch(each.file, given.only)]
    with tempfile.TemporaryDirectory(prefix="notifier-mutations-") as folder:
        places = [Path(folder) / str(number) for number in range(given.jobs)]
        for place in places:
            place.mkdir()
        runner = Runner(given.json, places)
        todo = [each for each in chosen if each.key not in runner.results]
        with ThreadPoolExecutor(given.jobs) as pool:
            for _ in pool.map(runner.examine, todo):
                pass
    found = report(chosen, runner.results)
    sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    document = json.loads(DATA.read_text())
    if given.record:
        write(found, document["mutations"])
        return 0
    return int(bool(found["gone"]) or (found["share"] or 0.0) < document["record"].get("share", 0.0))


def write(record: Mapping[str, Any], faults: Sequence[Sequence[str]]) -> None:
    """Write the file of faults, one a line."""
    head = json.dumps(record, indent=1, ensure_ascii=False).replace("\n", "\n ")
    lines = ",\n".join(f"  {json.dumps(each, ensure_ascii=False)}" for each in faults)
    DATA.write_text(f'{{\n "record": {head},\n "mutations": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    sys.exit(main())
