"""What a dead client's waiting deliveries cost: 100,000 of them by default, on RabbitMQ, until the client recovers.

    python -m tests.benchmarks.deferrals --deliveries 100000 --fault refuse --json FILE

In order: fresh deliveries to other clients before anything waits (the baseline); all events for the dead client are
published and taken in; nothing is published, and the worker's use of its core is looked at each second; fresh
deliveries again; then the dead client recovers, fresh deliveries going on. README.md says how to read the figures.
"""

import gc
import math
import sys
from collections.abc import Sequence

import uvloop
from rich.table import Table

from tests.benchmarks.deferrals_run import Found, Options, run
from tests.benchmarks.receivers import Kind
from tests.benchmarks.rig import Setup, answer, command_line, console, described, machine, table_of, write_json


def table(found: Found, options: Options) -> Table:
    """Make the table for people."""
    made = table_of(f"{options.deliveries:,} deliveries wait for one dead client", ("", "", "target"), left=3)
    cpu, after = found.waiting, found.recovery
    passes = ", ".join(f"{phase} {value:.2f}" for phase, value in found.passes.items())
    rows = (
        ("taken in", f"{found.intake_seconds:.1f} s, {options.deliveries / found.intake_seconds:.0f}/s", ""),
        ("worker while they wait, % of a core", f"{100 * cpu.mean:.1f}; most in a second {100 * cpu.max:.1f}", "< 10"),
        ("worker, MiB", f"{found.memory:.0f}", "< 100"),
        ("fresh deliveries before: p50, p99, ms", str(found.fresh_before), ""),
        ("fresh deliveries while they wait", str(found.fresh_waiting), "as before"),
        ("fresh deliveries during the recovery", str(found.fresh_recovery), ""),
        ("first arrival after the recovery", f"{after.first:.1f} s", "≤ half of the outage + 3 s"),
        ("all have arrived after", f"{after.last:.1f} s", ""),
        ("arrivals a second: median, most", f"{after.median_rate:.0f}, {after.max_rate:.0f}", ""),
        ("requests at the client at a time, at most", f"{after.peak}", f"≤ {options.max_concurrent}"),
        ("queue passes a delivery", passes, "all < 3"),
        ("attempts a delivery", f"{found.attempts:.2f}", ""),
    )
    for title, value, target in rows:
        made.add_row(title, value, target)
    told = found.account
    made.caption = (
        f"of {told.expected} deliveries {told.arrived} arrived, {told.duplicated} twice or more, {told.missing} missing"
    )
    return made


def bars(counts: Sequence[int], width: int = 100) -> str:
    """Draw the rate over time as one line. A mark is a second, or more if the line would be too long."""
    seconds = -(-len(counts) // width) or 1
    parts = [counts[start : start + seconds] for start in range(0, len(counts), seconds)]
    rates = [sum(part) / len(part) for part in parts]
    most = max(rates, default=0)
    line = "".join(" ▁▂▃▄▅▆▇█"[math.ceil(8 * rate / most) if rate else 0] for rate in rates)
    return f"arrivals a second since the recovery, {seconds} s a mark, █ = {most:.0f}:\n|{line}|"


def main() -> int:
    """Return 0 when every delivery has arrived, else 1."""
    parser = command_line("deferrals", __doc__)
    parser.add_argument("--deliveries", type=int, default=100_000, help="that wait (default %(default)s)")
    parser.add_argument("--fault", choices=("refuse", "hang"), default="refuse", help="of the client (%(default)s)")
    parser.add_argument(
        "--wait", type=float, default=60, help="seconds of each phase before the recovery (%(default)s)"
    )
    parser.add_argument("--fresh", type=float, default=20, help="fresh events a second to other clients (%(default)s)")
    parser.add_argument("--answer", type=float, default=0.02, help="seconds to an answer once it lives (%(default)s)")
    parser.add_argument("--limit", type=float, default=1800, help="seconds that the recovery may take (%(default)s)")
    parser.add_argument("--max-concurrent", type=int, default=32, help="of the client (%(default)s, the service's own)")
    parser.add_argument("--max-age", default="24h", help="no delivery may expire meanwhile (%(default)s, likewise)")
    parser.add_argument("--log-level", default="info", help="of the worker, to a file (%(default)s)")
    given = parser.parse_args()
    options = Options(
        setup=Setup(delivery={"max_age": given.max_age}, log_level=given.log_level), deliveries=given.deliveries,
        fault=Kind(given.fault), wait=given.wait, fresh=given.fresh, answer=given.answer, limit=given.limit,
        max_concurrent=given.max_concurrent,
    )  # fmt: skip
    with machine(given.url) as (url, cores):
        found = uvloop.run(run(url, options, cores, console()))
    answer(given.json).print(table(found, options))
    answer(given.json).print(bars(found.recovery.arrivals), soft_wrap=True)
    write_json(given.json, {"machine": described(), "options": options, "cores": cores, "found": found})
    return 0 if found.account.complete else 1


if __name__ == "__main__":
    gc.disable()  # a search for cycles holds the publisher for 40 ms
    sys.exit(main())
