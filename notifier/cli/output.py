"""Prints all text of the commands. `screen` draws tables and bars."""

import typer

from notifier.domain.printable import printable_lines


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text without characters that a terminal obeys: on stdout, or with `err` on stderr."""
    typer.echo(printable_lines(text), err=err, nl=nl)
