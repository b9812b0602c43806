"""Makes the application that holds all commands, and handles every error that leaves a command.

A command and what it needs are imported when somebody types it, so that `--help` is there at once.
"""

import os
import sys
import traceback
from types import TracebackType
from typing import Annotated

import typer
from typer.core import TyperGroup

from notifier import __version__
from notifier.cli.commands import COMMANDS, GONE
from notifier.features import FEATURES
from notifier.model.errors import ConfigurationError, MalformedEvent, Mistake, NotifierError, exit_code, leaves, ours
from notifier.model.printable import counted
from notifier.operators.terminal.help import command_group
from notifier.operators.terminal.output import say

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
def _all(
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
    sys.excepthook = _fault
    _refuse_gone(sys.argv[1:])
    try:
        application()(prog_name="notifier", obj=FEATURES)  # `app()` would replace our hook by typer's
    except KeyboardInterrupt:
        sys.exit(130)
    except (NotifierError, BaseExceptionGroup) as failure:
        if not (errors := ours(failure)):
            raise
        for error in errors:
            fail(error)
        sys.exit(max(map(exit_code, errors)))


def _refuse_gone(words: list[str]) -> None:
    for gone, why in GONE.items():
        name, *options = gone.split()
        if words[:1] == [name] and set(options) <= {word.partition("=")[0] for word in words}:
            say(f"notifier: `notifier {gone}` {why}", err=True)
            sys.exit(2)


def fail(error: NotifierError) -> None:
    """Print what is wrong, each mistake on its own line."""
    match error:
        case ConfigurationError(mistakes=mistakes):
            _list(mistakes, "in the configuration")
        case MalformedEvent(mistakes=mistakes):
            _list(mistakes, "in the events; nothing was sent")
        case _:
            say(f"notifier: {error}", err=True)


def _list(mistakes: tuple[Mistake, ...], where: str) -> None:
    say(f"notifier: {counted(len(mistakes), 'mistake')} {where}", err=True)
    for mistake in mistakes:
        say(f"  {mistake}", err=True)


def _fault(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """Print an unexpected error in one line. Python then exits with 1.

    The frames go to the log, the text of the error does not: it may quote a `sub`.
    """
    first = next(iter(leaf for leaf in leaves(error) if not isinstance(leaf, NotifierError)), error)
    if isinstance(first, OSError) and first.strerror:
        of_file = "" if first.filename is None else f": {os.fsdecode(first.filename)}"
        say(f"notifier: {first.strerror}{of_file}", err=True)
    elif isinstance(first, ImportError):  # its text names modules and nobody: a library too old or too new for us
        say(f"notifier: {first}; `pip check` names the packages that do not fit", err=True)
    else:
        frames = traceback.extract_tb(first.__traceback__)
        where = f" at {os.path.relpath(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
        say(f"notifier: a fault of its own, {type(first).__name__}{where}", err=True)
    import structlog

    from notifier.operators.terminal.command_options import quiet_logs

    if not structlog.is_configured():
        quiet_logs()
    frames_text = "".join(traceback.format_tb(first.__traceback__))
    structlog.get_logger().error("crashed", error=type(first).__name__, exception=frames_text)
