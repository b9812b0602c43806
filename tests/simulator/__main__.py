"""`python -m tests.simulator [NAME…]`: measure the goals whose names begin so, on all cores, and print a table.

A goal with a bound (`seed_shares.py`) is measured on 20 seeds, of which as many as the bound may miss it. All seeds of
any other goal must meet it. Exits with 1 if a goal is missed. `--curve FILE` also writes how late a logout is after an
outage, by the outage's length and kind, as JSON.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.simulator.case import Case, measure_short
from tests.simulator.cases import allowed_by_record, every, long_cpu_seconds, long_seeds, short
from tests.simulator.draws import Draw, measure_draws
from tests.simulator.lag_curve import measure_curve


def long_rows(cases: Sequence[Case], processes: int) -> Iterator[tuple[bool, Sequence[str]]]:
    """Measure the cases, and return whether each is met, with its row of the table. The longest cases come first."""
    by_name, draws = {case.name: case for case in cases}, defaultdict[str, list[Draw]](list)
    longest_first = sorted(cases, key=long_cpu_seconds, reverse=True)
    jobs = ((case.name, seed) for case in longest_first for seed in long_seeds(case))
    for draw in measure_draws(lambda: next(jobs, None), processes):
        draws[draw.goal].append(draw)
        case = by_name[draw.goal]
        if len(draws[case.name]) == len(long_seeds(case)):
            yield _long_row(case, sorted(draws[case.name], key=lambda each: each.seed))


def _long_row(case: Case, draws: Sequence[Draw]) -> tuple[bool, Sequence[str]]:
    """Show the figures of the first seed that missed, else those of the first."""
    missed = [draw for draw in draws if not draw.ok]
    allowed = allowed_by_record(case) or 0
    shown = [*missed, *draws][0]
    share = f"{len(missed)} of {len(draws)}" + (f" (≤ {allowed})" if allowed else "")
    spent = f"{sum(draw.cpu_seconds for draw in draws):.1f}"
    ok = len(missed) <= allowed
    return ok, (case.name, case.goal, shown.text, share, "ok" if ok else "missed", spent)


def short_rows(cases: Sequence[Case]) -> Iterator[tuple[bool, Sequence[str]]]:
    """Measure the cases in their short form."""
    for case in cases:
        began = time.process_time()
        found = measure_short(case)
        spent = f"{time.process_time() - began:.1f}"
        yield found.ok, (case.name, case.goal, found.text, "", "ok" if found.ok else "missed", spent)


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("names", nargs="*", default=[""], help="beginnings of cases' names")
    parser.add_argument(
        "--short", action="store_true", help="as the tests do: a goal is met if one of the seeds 1, 2, 3 meets it"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--curve", type=Path, metavar="FILE", help="write the curve of outage against lag")
    options = parser.parse_args()
    began = time.monotonic()
    if options.curve is not None:
        options.curve.parent.mkdir(parents=True, exist_ok=True)
        options.curve.write_text(json.dumps(measure_curve(options.processes), indent=1) + "\n")
    chosen = [case for case in (short() if options.short else every()) if case.name.startswith(tuple(options.names))]
    if not chosen:
        parser.error(f"no goal begins with {' or '.join(options.names)}")
    rows = short_rows(chosen) if options.short else long_rows(chosen, options.processes)
    missed_count = 0
    sys.stdout.write("| goal | condition | measured | missed by | | CPU s |\n|---|---|---|---|---|---|\n")
    for ok, row in rows:
        missed_count += not ok
        sys.stdout.write(f"| {' | '.join(row)} |\n")
        sys.stdout.flush()
    minutes = (time.monotonic() - began) / 60
    sys.stdout.write(f"\n{len(chosen)} goals in {minutes:.1f} min, {missed_count} missed\n")
    return 1 if missed_count else 0


if __name__ == "__main__":
    sys.exit(main())
