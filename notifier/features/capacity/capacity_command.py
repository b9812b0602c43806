"""`notifier capacity`: computes how many workers are needed when so many sessions end within a time."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from notifier.features.capacity import measured_costs
from notifier.features.capacity.capacity import LOAD, MAX_CONCURRENT, Capacity, Demand, capacity_for
from notifier.model.durations import format_duration, parse_duration
from notifier.model.message import Lane
from notifier.model.printable import counted
from notifier.operators.terminal.command_options import EventLane, Json
from notifier.operators.terminal.output import say, say_json


class MeasuredAlgorithm(StrEnum):
    """The algorithms that were measured."""

    RS256 = "RS256"
    ES256 = "ES256"


def capacity(
    sessions: Annotated[int, typer.Option(min=1, help="How many sessions end.")],
    clients: Annotated[int, typer.Option(min=1, help="How many clients each session has.")],
    within: Annotated[str, typer.Option(metavar="TIME", help="The time: 90s, 10m, 1h; a bare number is minutes.")],
    alg: Annotated[MeasuredAlgorithm, typer.Option(help="The algorithm of the tokens.")] = MeasuredAlgorithm.RS256,
    answer: Annotated[str, typer.Option(metavar="TIME", help="How long a client takes to answer.")] = "100ms",
    lane: Annotated[EventLane, typer.Option(help="The lane of the events; bulk is for mass logouts.")] = EventLane.BULK,
    as_json: Json = False,
) -> None:
    """Compute how many workers you need when so many sessions end within a given time.

    It also says what the broker needs, and whether the clients can keep up. The figures were measured
    (docs/evidence/performance.md); the answer keeps 30 % in reserve. The command reads no configuration and connects
    to nothing.

    Examples:
        # a million sessions of 5 clients within 10 min
        notifier capacity --sessions 1000000 --clients 5 --within 10m
        # with a cheaper signature and quick clients
        notifier capacity --sessions 1000000 --clients 5 --within 10m --alg ES256 --answer 20ms
        # how many replicas, for a script
        notifier capacity --sessions 50000 --clients 3 --within 1m --json | jq .workers
    """
    demand = Demand(
        sessions=sessions,
        clients=clients,
        within=_seconds(f"{within}m" if within.strip().isdigit() else within, "--within"),
        alg=alg.value,
        answer=_seconds(answer, "--answer"),
        lane=Lane(lane.value),
    )
    capacity = capacity_for(demand)
    if as_json:
        say_json(_document(demand, capacity), indent=2)
    else:
        say(_in_words(demand, capacity))


def _seconds(text: str, option: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    if seconds <= 0:
        raise typer.BadParameter("must be longer than 0", param_hint=option)
    return seconds


def _document(demand: Demand, capacity: Capacity) -> dict[str, object]:
    return {
        "demand": {**asdict(demand), "lane": demand.lane.value},
        "events_per_second": round(demand.events_per_second, 3),
        "deliveries_per_second": round(demand.deliveries_per_second, 3),
        **{name: round(value, 3) for name, value in asdict(capacity).items()},
        "within_reach": capacity.within_reach(demand),
        "measured": measured_costs.TAKEN,
    }


def _in_words(demand: Demand, capacity: Capacity) -> str:
    answer = format_duration(demand.answer)
    attempts = f"{capacity.in_flight_of_worker:,} a worker in lane {demand.lane.value}"
    wanted = f"{demand.events_per_second:,.0f} events/s, {demand.deliveries_per_second:,.0f} deliveries/s, {demand.alg}"
    ending = f"{counted(demand.sessions, 'session')} of {counted(demand.clients, 'client')}"
    processor, in_flight = capacity.workers_for_processor, capacity.workers_for_in_flight
    lines = [
        f"{ending} within {format_duration(demand.within)}: {wanted}",
        "",
        f"workers    {capacity.workers:,}, each with one core and {measured_costs.MEMORY:.0f} MiB",
        f"  processor  {processor:,}: each delivers {capacity.worker_rate:,.0f}/s, {LOAD:.0%} of what was measured",
        f"  in flight  {in_flight:,}: {capacity.in_flight:,} requests at a time (answers after {answer}), {attempts}",
        f"broker     {capacity.broker_cores:.2f} of a core for the events{_queues(capacity)}",
    ]
    line = f"clients    up to {demand.events_per_second:,.0f} requests/s each, {capacity.at_a_client:,.0f} at a time"
    if capacity.within_reach(demand):
        lines.append(line)
    else:
        lines += [
            f"{line}: too many.",
            f"  With max_concurrent {MAX_CONCURRENT} and answers after {answer}, a client that knows every session",
            f"  needs {_rounded(capacity.client_seconds)}, whatever the number of workers. Allow more time, or raise",
            "  its max_concurrent if it can take it.",
        ]
    return "\n".join([*lines, "", f"Measured {measured_costs.TAKEN}; for your own machine see docs/scaling.md."])


def _queues(capacity: Capacity) -> str:
    if capacity.queues == 1:
        return ", one set of queues"
    return f": more than one queue gives; share the issuers out over {capacity.queues} prefixes or virtual hosts"


def _rounded(seconds: float) -> str:
    return f"{seconds / 60:,.0f} min" if seconds >= 120 else f"{seconds:,.0f} s"
