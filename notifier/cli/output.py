"""Text on its way to people: by here it leaves a command, and by `screen` what is drawn."""

import typer

from notifier.domain.printable import printable_lines


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Write it, on stderr where it is no answer, with nothing in it that a terminal would obey."""
    typer.echo(printable_lines(text), err=err, nl=nl)
