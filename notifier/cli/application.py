"""The application that holds all commands, and how errors leave it."""

import sys
from collections.abc import Iterator

import typer

from notifier.cli import run
from notifier.domain.errors import ConfigurationError, NotifierError

app = typer.Typer(
    name="notifier",
    help="Delivers OpenID Connect Back-Channel Logout notifications: durable, retried, isolated, observable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _all() -> None:
    """Delivers OpenID Connect Back-Channel Logout notifications: durable, retried, isolated, observable."""


app.command("run")(run.run)


def main() -> None:
    """Run the command that the arguments name."""
    try:
        app()
    except NotifierError as error:
        sys.exit(fail(error))
    except BaseExceptionGroup as group:
        ours = list(_leaves(group))
        if not all(isinstance(error, NotifierError) for error in ours):
            raise
        sys.exit(max(fail(error) for error in ours))


def fail(error: BaseException) -> int:
    """Say what is wrong, each mistake on a line of its own; returns the exit code."""
    if isinstance(error, ConfigurationError):
        count = len(error.mistakes)
        typer.echo(f"notifier: {count} mistake{'s' if count > 1 else ''} in the configuration", err=True)
        for mistake in error.mistakes:
            typer.echo(f"  {mistake}", err=True)
        return 2
    typer.echo(f"notifier: {error}", err=True)
    return 1


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
