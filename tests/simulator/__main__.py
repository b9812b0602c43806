"""`python -m tests.simulator [NAME…]`: run the cases whose names begin so, and print a table.

Exits with 1 if one falls short. `--curve FILE` also writes how late a logout is after an outage, by the outage's
length and kind, as JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from tests.simulator.cases import every
from tests.simulator.clients import Behaviour, answers_503, hangs, refuses, steady, well
from tests.simulator.outage import Outage, outage

LENGTHS = (1, 2, 4, 8, 15, 30, 60, 120, 300, 900, 3600)
KINDS: dict[str, tuple[Behaviour, Behaviour]] = {
    "refuses connections": (refuses, well),
    "answers 503": (answers_503, steady(0.25)),
    "does not answer": (hangs, well),
}


def curve() -> list[dict[str, float | str]]:
    """Return the seconds from the recovery until the first and until all deferred deliveries are sent. The worst of
    three runs.
    """
    found: list[dict[str, float | str]] = []
    for kind, (bad, good) in KINDS.items():
        for length in LENGTHS:
            rate = 10.0 if length <= 300 else 2.0
            runs = [outage(Outage(seconds=length, bad=bad, good=good, rate=rate, seed=seed)) for seed in (1, 2, 3)]
            found.append(
                {
                    "kind": kind,
                    "outage": length,
                    "begins": round(max(run.start for run in runs), 1),
                    "last": round(max(run.lag for run in runs), 1),
                }
            )
    return found


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("names", nargs="*", default=[""], help="beginnings of cases' names")
    parser.add_argument("--short", action="store_true", help="only cases that run with the tests")
    parser.add_argument("--curve", type=Path, metavar="FILE", help="write the curve of outage against lag")
    options = parser.parse_args()
    if options.curve is not None:
        options.curve.parent.mkdir(parents=True, exist_ok=True)
        options.curve.write_text(json.dumps(curve(), indent=1) + "\n")
    chosen = [
        case for case in every() if case.name.startswith(tuple(options.names)) and (case.short or not options.short)
    ]
    short_of = 0
    sys.stdout.write("| case | goal | measured | | CPU s |\n|---|---|---|---|---|\n")
    for case in chosen:
        began = time.process_time()
        draws = [case.measure(seed) for seed in range(1, 1 + (1 if options.short else case.seeds))]
        found = min(draws, key=lambda draw: draw.ok)
        short_of += not found.ok
        verdict = "ok" if found.ok else "SHORT"
        row = (case.name, case.goal, found.text, verdict, f"{time.process_time() - began:.1f}")
        sys.stdout.write(f"| {' | '.join(row)} |\n")
        sys.stdout.flush()
    sys.stdout.write(f"\n{len(chosen)} cases, {short_of} fall short\n")
    return 1 if short_of else 0


if __name__ == "__main__":
    sys.exit(main())
