"""Builds the application with all commands, and handles every error that a command raises.

A command is imported when it is called, so that `--help` starts quickly.
"""

import os
import sys
import traceback
from io import TextIOWrapper
from types import TracebackType
from typing import Annotated

import typer
from typer.core import TyperGroup

from notifier import __version__
from notifier.features import FEATURES
from notifier.model.errors import (
    ConfigurationError,
    InputIssue,
    MalformedEvent,
    NotifierError,
    exit_code,
    find_own_errors,
    iter_leaves,
)
from notifier.model.printable import counted
from notifier.operators.terminal.help import LazyCommand, command_group
from notifier.operators.terminal.output import say

# In the order of `notifier --help`. The help of each command begins with this line.
COMMANDS = (
    LazyCommand("run", "notifier.service.run_command",
        "Run a worker: take events from the queue and deliver their logouts, until SIGTERM or SIGINT."),
    LazyCommand("demo", "notifier.demo.demo_command",
        "Show notifier at work: no broker, no configuration, less than 30 seconds."),
    LazyCommand("publish", "notifier.publishing.publish_command",
        "Publish events from a file or stdin, and wait until the queue has confirmed each."),
    LazyCommand("reload", "notifier.operators.status.reload_command",
        "Have all workers read their configuration and their registry sources now, and show what each did."),
    LazyCommand("check", "notifier.cli.check_command",
        "List every mistake of a configuration, or sum it up if there is none."),
    LazyCommand("doctor", "notifier.service.doctor_command",
        "Check everything that a logout depends on, with a remedy for each problem."),
    LazyCommand("explain", "notifier.operators.doctor.explain_command",
        "Explain a name: its meaning, what to do, and how to see that it is over."),
    LazyCommand("schema", "notifier.cli.schema_command",
        "Print the JSON Schema (2020-12) of a document that notifier reads, or of the outcomes that it writes."),
    LazyCommand("status", "notifier.operators.status.status_command",
        "Show the pending messages, the rates, and the state of workers and clients."),
    LazyCommand("retry", "notifier.operators.deliveries.retry_command",
        "Attempt the pending deliveries of a client now, instead of when they are due."),
    LazyCommand("pause", "notifier.operators.deliveries.pause_command",
        "Pause a client: its deliveries wait until the end, and are then attempted."),
    LazyCommand("resume", "notifier.operators.deliveries.pause_command",
        "End the pause of a client now: its deliveries are attempted, as fast as the client and its limits allow."),
    LazyCommand("pauses", "notifier.operators.deliveries.pause_command",
        "List the clients that operators have paused: who, why, and until when. Also the last pauses that have ended."),
    LazyCommand("log-id", "notifier.cli.log_id_command",
        "Print the hash under which logs show a `sub` or `sid`."),
    LazyCommand("clients", "notifier.cli.clients_command",
        "Show the clients that are in force, and where each value of them comes from."),
    LazyCommand("keys", "notifier.cli.keys_command",
        "Make signing keys and keys of pages, and print what the issuer must publish."),
    LazyCommand("topology", "notifier.cli.topology_command",
        "Show, declare or delete the queues and exchanges on RabbitMQ."),
    LazyCommand("waiting", "notifier.operators.deliveries.waiting_command",
        "List, show or cancel deliveries that wait for their next attempt."),
    LazyCommand("dead-letters", "notifier.operators.deliveries.dead_letters_command",
        "List, show, export, replay or discard deliveries that were given up and messages that could not be read."),
    *(LazyCommand(*command) for feature in FEATURES for command in feature.commands),
)  # fmt: skip

REMOVED_OPTIONS = {
    "demo --browser": "is gone: use `notifier demo` or `notifier demo --console`",
    **dict.fromkeys(
        ("status --from", "status --token-file"), "is gone: use GET /v1/status of the worker's API, or its console"
    ),
    "status --watch": "is gone: use watch notifier status",
    **dict.fromkeys(("log-id --in", "log-id --json"), 'is gone: use grep "$(notifier log-id SUB)" FILE'),
    "capacity": "is gone: the tables of docs/scaling.md show the number of workers",
    "report": "is gone: the SQL query and the PromQL of docs/outcomes.md show shares and times by client",
    "collect": "is gone: bind a queue to <prefix>.outcomes; its file is read by the SQL of docs/outcomes.md",
    "sources list": "is gone: `notifier check` lists the sources, and docs/sources.md the presets",
    **dict.fromkeys(
        ("sources --header", "sources --property", "sources --content-type"),
        "is gone: try a dead letter, as `notifier dead-letters show --json` prints it, which has them",
    ),
    **dict.fromkeys(("clients --issuer", "doctor --issuer", "keys --issuer"), "is gone: use --iss"),
}
"""Removed commands and options, with their replacement. They exit with 2."""


app = typer.Typer(
    name="notifier",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"notifier {__version__}")
        raise typer.Exit


@command_group(app)
def _group(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Delivers OpenID Connect Back-Channel Logout notifications: durable, retried, isolated, observable.

    Exit status: 0 done, 1 failed, 2 wrong use or configuration.

    Examples:
        # see it work, with nothing set up
        notifier demo
        # find every mistake of a configuration, then run it
        notifier check -c n.yaml && notifier run -c n.yaml
        # end a session by hand
        notifier publish -c n.yaml event.json
    """


def application() -> TyperGroup:
    """Return the application with all commands."""
    group = typer.main.get_group(app)
    for command in COMMANDS:
        group.add_command(command)
    return group


def main() -> None:
    """Run the command that the arguments name."""
    sys.excepthook = _print_internal_fault
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows ? instead of … and –
    _refuse_removed(sys.argv[1:])
    try:
        application()(prog_name="notifier", obj=FEATURES)  # `app()` would replace sys.excepthook by typer's
    except KeyboardInterrupt:
        sys.exit(130)
    except (NotifierError, BaseExceptionGroup) as failure:
        errors = find_own_errors(failure)
        if not errors:
            raise
        for error in errors:
            print_error(error)
        sys.exit(max(map(exit_code, errors)))


def _refuse_removed(arguments: list[str]) -> None:
    """Exit with 2 if the arguments have a removed command or option, and print its replacement."""
    names = {argument.partition("=")[0] for argument in arguments}
    for removed, replacement in REMOVED_OPTIONS.items():
        command, *options = removed.split()
        if arguments[:1] == [command] and names.issuperset(options):
            say(f"notifier: `notifier {removed}` {replacement}", err=True)
            sys.exit(2)


def print_error(error: NotifierError) -> None:
    """Print the error on stderr; the mistakes in a configuration or event, one per line."""
    match error:
        case ConfigurationError(mistakes=mistakes):
            _print_issues(mistakes, "in the configuration")
        case MalformedEvent(mistakes=mistakes):
            _print_issues(mistakes, "in the events; nothing was sent")
        case _:
            say(f"notifier: {error}", err=True)


def _print_issues(mistakes: tuple[InputIssue, ...], where: str) -> None:
    say(f"notifier: {counted(sum(mistake.count for mistake in mistakes), 'mistake')} {where}", err=True)
    for mistake in mistakes:
        say(f"  {mistake}", err=True)


def _print_internal_fault(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """Print an unexpected error in one line, and log its frames. Python then exits with 1.

    The error's text is not logged, since it may contain a `sub`. Of an exception group, one internal error is printed.
    """
    first = next((leaf for leaf in iter_leaves(error) if not isinstance(leaf, NotifierError)), error)
    if isinstance(first, OSError) and first.strerror:
        file = "" if first.filename is None else f": {os.fsdecode(first.filename)}"
        say(f"notifier: {first.strerror}{file}", err=True)
    elif isinstance(first, ImportError):  # a library is too old or too new; the text contains only names of modules
        say(f"notifier: {first}; `pip check` names the packages that do not fit", err=True)
    else:
        frames = traceback.extract_tb(first.__traceback__)
        where = f" at {os.path.relpath(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
        say(f"notifier: internal error, {type(first).__name__}{where}", err=True)
    import structlog

    from notifier.operators.terminal.command_options import quiet_logs

    if not structlog.is_configured():
        quiet_logs()
    frames_text = "".join(traceback.format_tb(first.__traceback__))
    structlog.get_logger().error("crashed", error=type(first).__name__, exception=frames_text)
