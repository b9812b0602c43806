"""The commands `notifier topology show`, `declare` and `delete`, for the queues and exchanges on RabbitMQ."""

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated

import typer

from notifier.configuration.configured_feature import bindings_in
from notifier.features import FEATURES
from notifier.model.message import PARKED, PARKED_LARGE, BindingState
from notifier.model.printable import counted
from notifier.operators.terminal.command_options import Config, Json, quiet_logs
from notifier.operators.terminal.help import command, command_group
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.screen import Grid, make_screen
from notifier.queues.building import rabbit_options
from notifier.queues.rabbitmq.administration import declare_topology, delete_topology, survey_bindings, survey_topology
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.register import REGISTER
from notifier.queues.rabbitmq.settling import Settling
from notifier.queues.rabbitmq.topology import TopologyState
from notifier.settings.config_file import read_sections

app = typer.Typer()


@command_group(app)
def _group() -> None:
    """Show, declare or delete the queues and exchanges on RabbitMQ.

    Examples:
        # what is declared, and how much waits
        notifier topology show -c n.yaml
        # declare as an administrator; workers then run with queue.topology: verify
        notifier topology declare -c admin.yaml
    """


@command(app)
def show(config: Config = None, as_json: Json = False) -> None:
    """Show each queue and exchange: its state (ok, missing or different), ready messages and arguments.

    Of the exchanges that sources bind, the command shows which are missing or may not be read.

    Examples:
        # a table
        notifier topology show -c n.yaml
        # what is missing or different
        notifier topology show -c n.yaml --json | jq '.[] | select(.state != "ok")'
    """
    options = _load_options(config, as_json=as_json)
    states: Sequence[TopologyState] = asyncio.run(survey_topology(options))
    bindings = asyncio.run(survey_bindings(options)) if options.bindings else ()
    if as_json:
        rows = [{**asdict(state), "state": _format_state(state)} for state in states]
        say_json([*rows, *map(_binding_document, bindings)], indent=2)
    else:
        for buckets in (PARKED, PARKED_LARGE):
            states = _merge_buckets(states, f"{options.prefix}.{buckets}-")
        _print_table(states)
        _print_missing_bindings(bindings)


@command(app)
def declare(config: Config = None) -> None:
    """Declare the queues and exchanges that are missing, and bind the queues of sources.

    Existing queues and exchanges are not changed. If one has wrong arguments, the command names it and exits with 1. A
    binding that is not possible yet is not an error: workers try it again.

    Examples:
        # before the first worker starts
        notifier topology declare -c admin.yaml
    """
    options = _load_options(config)
    _print_missing_bindings(asyncio.run(declare_topology(options, Settling(_print_new_queues))))
    say(f"all queues and exchanges under {options.prefix} are declared")


@command(app)
def delete(
    config: Config = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX",
            help="Delete even if messages wait or workers consume; those logouts are lost. PREFIX is queue.prefix.",
        ),
    ] = None,
) -> None:
    """Delete every queue and exchange under queue.prefix.

    The command refuses while messages wait in them or workers consume them.

    Examples:
        # stop the workers, then
        notifier topology delete -c n.yaml
        # with the messages that wait
        notifier topology delete -c n.yaml --yes --force notifier
    """
    options = _load_options(config)
    states = [state for state in asyncio.run(survey_topology(options)) if not state.missing]
    if not states:
        say(f"there is nothing under {options.prefix}")
        return
    _require_force(options.prefix, states, force)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask on; give --yes", param_hint="--yes")
        if not typer.confirm(f"Delete {len(states)} queues and exchanges under {options.prefix}?", err=True):
            raise typer.Exit(1)
    lost = asyncio.run(delete_topology(options))
    messages = sum(lost.values())
    note = f", and {counted(messages, 'message')} with them" if messages else ""
    say(f"deleted {len(states)} queues and exchanges under {options.prefix}{note}")


def _binding_document(binding: BindingState) -> dict[str, str]:
    """Return a binding as JSON. The broker reports only whether it can exist, not whether it does."""
    return {"what": "binding", **binding.row(), "state": "missing" if binding.problem else "ok"}


def _print_missing_bindings(bindings: Sequence[BindingState]) -> None:
    for binding in bindings:
        if binding.problem:
            say(str(binding), err=True)


def _print_new_queues(names: Sequence[str], seconds: float) -> None:
    new = counted(len(names), "new queue")
    say(f"{new}: waiting {seconds:.0f} s until RabbitMQ has written their names to its disk", err=True)


def _require_force(prefix: str, states: Sequence[TopologyState], force: str | None) -> None:
    """Exit with 1 if messages are ready or a worker consumes, unless --force names the prefix.

    The register always has a message, which does not count. Raises BadParameter if --force names another prefix.
    """
    ready = {state.name: state.ready for state in states if state.ready and state.name != f"{prefix}.{REGISTER}"}
    consumed = [state.name for state in states if state.consumers]
    if force is not None and force != prefix:
        raise typer.BadParameter(f"queue.prefix is {prefix}, not {force}", param_hint="--force")
    if force is not None or not (ready or consumed):
        return
    say(f"notifier: nothing was deleted under {prefix}", err=True)
    for name, count in ready.items():
        say(f"  {name} holds {counted(count, 'message')}", err=True)
    for name in consumed:
        say(f"  {name} has a consumer: a worker runs and may hold more messages", err=True)
    say(f"  to delete them anyway: --force {prefix}", err=True)
    raise typer.Exit(1)


def _load_options(config: Config, *, as_json: bool = False) -> RabbitOptions:
    """Return the settings of the queue. For the embedded queue, print that it has no topology, and exit with 0."""
    quiet_logs()
    part = read_sections(config, os.environ, {"queue"})
    queue = part.settings.queue
    if queue.sqlite_file is None:
        return rabbit_options(queue, bindings_in(FEATURES, part.document))
    say(f"{queue.url[0]} is the embedded queue: it has no topology, only its file", err=True)
    if as_json:
        say("[]")
    raise typer.Exit


def _format_state(state: TopologyState) -> str:
    if state.missing:
        return "missing"
    return "ok" if state.difference is None else "different"


def _merge_buckets(states: Sequence[TopologyState], bucket_prefix: str) -> Sequence[TopologyState]:
    """Return the states with all buckets of this prefix merged into one, unless they are in several states."""
    buckets = [
        state for state in states if state.name.startswith(bucket_prefix) and state.name[len(bucket_prefix)].isdigit()
    ]
    if len({_format_state(bucket) for bucket in buckets}) != 1:
        return states
    name = f"{buckets[0].name} … ({counted(len(buckets), 'bucket')})"
    ready = None if buckets[0].missing else sum(bucket.ready or 0 for bucket in buckets)
    merged = replace(buckets[0], name=name, ready=ready)
    return [merged if state is buckets[0] else state for state in states if state not in buckets[1:]]


def _print_table(states: Sequence[TopologyState]) -> None:
    """Print a table of queues and exchanges, then how existing ones differ from what notifier declares."""
    console = make_screen()
    table = Grid("name", "state", "ready:", "arguments")
    for state in states:
        style = {"ok": "", "missing": "yellow", "different": "bold red"}[_format_state(state)]
        arguments = " ".join(f"{name}={value}" for name, value in state.arguments.items()) or state.what
        table.add_row(
            state.name, _format_state(state), "" if state.ready is None else f"{state.ready:,}", arguments, style=style
        )
    console.print(table)
    for state in states:
        if state.difference is not None:
            console.print(state.difference)
    if any(state.missing for state in states):
        console.print("`notifier topology declare` declares what is missing")
