"""Writes the figures of benchmarks/results into the documents: tables, pictures, the tables of workers.

    python -m tools.performance.document [--check]

Each file of figures fills a section of docs/evidence/performance.md; a section without figures stays empty. `--check`
writes nothing and reports outdated parts.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.limited_run import LIMITED
from benchmarks.record import FOLDER, load
from benchmarks.throughput import cases, target
from notifier.model.defaults import MAX_IN_FLIGHT, PREFETCH
from notifier.model.message import Lane
from tools.performance import comparisons
from tools.performance.cells import Cases, rows, spread
from tools.performance.picture import Chart, Line, svg

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PERFORMANCE, SCALING = ROOT / "docs" / "evidence" / "performance.md", ROOT / "docs" / "scaling.md"
PICTURES = ROOT / "docs" / "evidence" / "performance"
ALGORITHMS = ("RS256", "ES256")
SPEED_CASES = ("rabbitmq-es256-10", "rabbitmq-rs256-10")
BEGIN, END = "<!-- {name}: made by make bench-plot -->", "<!-- end -->"


def taken(found: Cases) -> str:
    """When, on what and under what load."""
    each = {(case["taken"]["processor"], case["taken"]["cores"], case["taken"]["python"]) for case in found.values()}
    machines = "; ".join(f"{name}, {cores} cores, Python {python}" for name, cores, python in sorted(each))
    days = sorted(case["taken"]["at"][:10] for case in found.values())
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    loads = [case["taken"]["load"] for case in found.values()]
    rounds = sorted({len(rounds) for case in found.values() if (rounds := _rounds(case))})
    times = f", {rounds[0]}{f' to {rounds[-1]}' if len(rounds) > 1 else ''} rounds a case" if rounds else ""
    return f"{when}, {machines}{times}; load {min(loads):g} to {max(loads):g}."


def _rounds(case: Mapping[str, Any]) -> Sequence[object]:
    return case.get("rounds") or case.get("report", {}).get("rounds") or ()


# ── sections ────────────────────────────────────────────────────────────────────────────────────────────────────


def throughput(found: Cases) -> str:
    """Return rates, ratios and costs; those of the cases with TLS are in the file of figures."""
    head = "| case | deliveries/s | ceiling | worker ÷ ceiling | target | CPU µs | MiB |"
    known = cases()

    def line(name: str) -> list[str]:
        case = found[name]
        wanted = target(known[name])
        return [
            f"`{name}`", spread(case["rate"]), spread(case["ceiling"]), spread(case["ratio"], ".2f"),
            "" if wanted is None else f"≥ {wanted}", spread(case["cpu"]),
            f"{case['memory']['max']:.0f}",
        ]  # fmt: skip

    return rows(head, [line(name) for name in known if name in found and not name.endswith("-tls")])


def latency(found: Cases) -> str:
    """By load."""
    head = "| load | events/s | p50 ms | p99 ms | p99.9 ms | max ms | publisher late, p99 ms |"
    lines = [
        [f"{case['load']:.0%}", f"{case['rate']:,.0f}", *(spread(case[name], ".1f") for name in ("p50", "p99", "p999")),
         spread(case["max"]), spread(case["late"], ".1f")]
        for case in sorted(found.values(), key=lambda case: case["load"])
    ]  # fmt: skip
    return f"{rows(head, lines)}\n\n![Latency against load](performance/latency.svg)"


def growth(found: Cases) -> str:
    """By series."""
    backlogs = [case for case in found.values() if "report" in case]
    starts = [case for case in found.values() if "report" not in case]
    made = []
    if backlogs:
        head = "| what grows | to | deliveries/s | CPU µs | ÷ ceiling | MiB at most |"
        made.append(rows(head, [_grown(case) for case in _ordered(backlogs)]))
        named = [case["series"] for case in backlogs if case["series"] != "memory"]
        if len(named) > len(set(named)):  # two points of something are drawn
            made.append("![Cost against growth](performance/growth.svg)")
    if starts:
        head = "| clients file | clients | ready after s | MiB | reload s | MiB then, at most | loop held up, ms |"
        made.append(rows(head, [_started(case) for case in _ordered(starts)]))
    return "\n\n".join(made)


def _ordered(found: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(found, key=lambda case: (case["series"], case["x"]))


def _grown(case: Mapping[str, Any]) -> list[str]:
    told = case["report"]
    costs = spread(told["cpu"]), spread(told["cpu_ratio"], ".2f")
    return [case["series"], f"{case['x']:,}", spread(told["rate"]), *costs, f"{told['memory']['max']:.0f}"]


def _started(case: Mapping[str, Any]) -> list[str]:
    most = [f"{max(start[name] for start in case['rounds']):.0f}" for name in ("memory", "reload_memory")]
    seconds, reload = spread(case["seconds"], ".2f"), spread(case["reload_seconds"], ".2f")
    return [case["series"].removeprefix("start-"), f"{case['x']:,}", seconds, most[0], reload, most[1],
            spread(case["stall"], ".0f")]  # fmt: skip


def scale(found: Cases) -> str:
    """One worker and two."""
    head = "| case | share of a core each | one, deliveries/s | two | two ÷ one | CPU µs, one | two |"
    lines = [
        [f"`{name}`", f"{case['share']:.0%}", spread(case["one"]), spread(case["two"]), spread(case["gain"], ".2f"),
         spread(case["one_cpu"]), spread(case["two_cpu"])]
        for name, case in sorted(found.items())
    ]  # fmt: skip
    return rows(head, lines)


def broker(found: Cases) -> str:
    """What an event costs it."""
    head = "| RabbitMQ | published and confirmed, µs | taken and acked, µs | both, µs |"
    lines = [
        [case["version"], *(spread(case[name]) for name in ("published", "consumed", "both"))]
        for _, case in sorted(found.items())
    ]
    return rows(head, lines)


SECTIONS: Mapping[str, Callable[[Cases], str]] = {
    "throughput": throughput,
    "latency": latency,
    "growth": growth,
    "scale": scale,
    "broker": broker,
    "isolation": comparisons.isolation,
}

# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────


def pictures(folder: Path) -> dict[Path, str]:
    """By file; only of what there are two points of."""
    made = {}
    loads = sorted(load(folder / "latency.json").values(), key=lambda case: case["load"])
    if len(loads) > 1:
        lines = [Line(name, [_point(100 * case["load"], case[key]) for case in loads])
                 for name, key in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"))]  # fmt: skip
        chart = Chart(title="From publication to arrival", x="% of what one core can deliver", y="ms", lines=lines)
        made[PICTURES / "latency.svg"] = svg(chart)
    series: dict[str, list[tuple[float, float, float, float]]] = {}
    for case in load(folder / "growth.json").values():
        if "report" in case and case["series"] != "memory":
            series.setdefault(case["series"], []).append(_point(case["x"], case["report"]["cpu_ratio"]))
    lines = [Line(name, points) for name, points in sorted(series.items()) if len(points) > 1]
    if lines:
        title, y = "What a delivery costs with more of everything", "processor time ÷ the ceiling's"
        chart = Chart(title=title, x="messages, clients, clients an event, series", y=y, lines=lines, log_x=True)
        made[PICTURES / "growth.svg"] = svg(chart)
    return made


def _point(x: float, found: Mapping[str, float]) -> tuple[float, float, float, float]:
    return x, found["median"], found["min"], found["max"]


# ── workers ─────────────────────────────────────────────────────────────────────────────────────────────────────

LOAD = 0.7  # the share of the measured rate to plan with: at 80 % queues grow, and a worker may be down for a moment
ANSWER_SECONDS = 0.02


def workers(throughput: Cases, brokers: Cases) -> str:
    """Return the tables of docs/scaling.md; empty while a figure is missing."""
    costs = {(alg, n): throughput.get(f"rabbitmq-{alg.lower()}-{n}") for alg in ALGORITHMS for n in (1, 10)}
    measured = {key: case["cpu"]["median"] for key, case in costs.items() if case is not None}
    if not brokers or len(measured) < len(costs):
        return ""
    of_event = max(each["both"]["median"] for each in brokers.values()) / 1e6
    lines = []
    for sessions in (100_000, 1_000_000):
        for clients in (1, 5, 20):
            for minutes in (1, 10):
                events = sessions / (60 * minutes)
                told = [f"{workers_for(events, clients, worker_rate(measured, alg, clients)):,}" for alg in ALGORITHMS]
                lines.append([f"{sessions:,}", str(clients), f"{minutes} min", *told, f"{events * of_event:.2f}"])
    rates = [
        [str(clients), *(f"{worker_rate(measured, alg, clients):,.0f}" for alg in ALGORITHMS)]
        for clients in (1, 2, 5, 10, 20, 100)
    ]
    return "\n\n".join(
        [
            rows("| sessions | clients each | within | RS256 | ES256 | broker, cores |", lines),
            rows("| clients each | RS256 | ES256 |", rates),
        ]
    )


def worker_rate(measured: Mapping[tuple[str, int], float], alg: str, clients: int) -> float:
    """Return the deliveries a second to plan with, of a worker on one core.

    An event costs `event` by itself, and each of its deliveries the rest; both follow from events of 1 and of 10.
    """
    one_client, ten_clients = measured[alg, 1], measured[alg, 10]
    event = max(0.0, (one_client - ten_clients) / 0.9)
    return LOAD * 1e6 / (one_client - event + event / clients)


def workers_for(events: float, clients: int, rate: float) -> int:
    """Return the workers needed for this rate of events of the lane `bulk`, by processor and by attempts in flight."""
    deliveries = events * clients
    in_flight = math.ceil(deliveries * ANSWER_SECONDS)
    of_worker = min(MAX_IN_FLIGHT, PREFETCH[Lane.BULK] * clients)
    return max(1, math.ceil(deliveries / rate), math.ceil(in_flight / of_worker))


# ── the first page ──────────────────────────────────────────────────────────────────────────────────────────────


def speed(throughput: Cases) -> str:
    """Return the figure of README.md; empty while it is missing."""
    if not set(SPEED_CASES) <= set(throughput):
        return ""
    es256, rs256 = (throughput[name] for name in SPEED_CASES)
    return (
        f"One worker delivers **{es256['rate']['median']:,.0f} logouts a second** with ES256, "
        f"{rs256['rate']['median']:,.0f} with RS256\n(RabbitMQ, ten clients per event, one core of an "
        f"{es256['taken']['processor']}; [all figures](docs/evidence/performance.md))."
    )


# ── all of it ───────────────────────────────────────────────────────────────────────────────────────────────────


def filled(text: str, name: str, content: str) -> str:
    """The document with this section's content. Raises ValueError where it has no such section."""
    before, found, rest = text.partition(BEGIN.format(name=name))
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"there is no section {name}")
    return f"{before}{found}\n\n{content}\n\n{end}{after}" if content else f"{before}{found}\n{end}{after}"


def everything(folder: Path = FOLDER) -> dict[Path, str]:
    """What each file should hold."""
    text = PERFORMANCE.read_text()
    for name, made in SECTIONS.items():
        found = {case: told for case, told in load(folder / f"{name}.json").items() if case not in LIMITED}
        text = filled(text, name, f"{made(found)}\n\n{taken(found)}" if found else "")
    found = {case: told for case, told in load(folder / "isolation.json").items() if case in LIMITED}
    text = filled(text, "limits", "\n\n".join([comparisons.limits(found), *([taken(found)] if found else [])]))
    rates = load(folder / "throughput.json")
    return {
        PERFORMANCE: text,
        SCALING: filled(SCALING.read_text(), "workers", workers(rates, load(folder / "broker.json"))),
        README: filled(README.read_text(), "speed", speed(rates)),
        **pictures(folder),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 where `--check` finds something out of date."""
    parser = argparse.ArgumentParser(prog="python -m tools.performance.document", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only report outdated parts")
    given = parser.parse_args(arguments)
    wanted = everything()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
        if not given.check:
            path.write_text(wanted[path])
    return int(given.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
