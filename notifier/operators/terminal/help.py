"""Turns functions into commands. A docstring is the help, with words of code in bold and examples at its end.

Paragraphs flow, whatever the width. An example is a line, `# what it is for`, and the line to type.
"""

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

F = TypeVar("F", bound=Callable[..., None])
_CODE = re.compile(r"`([^`]+)`")


def command(app: typer.Typer) -> Callable[[F], F]:
    """Add a function to the commands of a group, under its name."""

    def add(function: F) -> F:
        name = function.__name__.rstrip("_").replace("_", "-")
        return app.command(name, cls=Command, **_help_of(function))(function)

    return add


def command_group(app: typer.Typer) -> Callable[[F], F]:
    """Describe a group of commands by a function's docstring."""
    return lambda function: app.callback(cls=CommandGroup, no_args_is_help=True, **_help_of(function))(function)


def as_help(text: str) -> str:
    """Return the text with words of code in bold instead of in backticks, for rich."""
    return _CODE.sub(r"[bold]\1[/]", escape(text))


def _help_of(function: Callable[..., None]) -> dict[str, Any]:
    text, _, examples = inspect.cleandoc(function.__doc__ or "").partition("\n\nExamples:\n")
    flowing = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    lines = [f"  {_styled(line)}" for line in textwrap.dedent(examples).splitlines()]
    return {"help": as_help(flowing), "epilog": "\n".join(["[bold]Examples[/]", *lines])}


def _styled(line: str) -> str:
    return f"[dim]{escape(line)}[/]" if line.startswith("#") else escape(line)


class _PlainFlags:
    """Shows a flag without a type: typer would say that it takes a bool."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Of typer: what its help shows, too."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Command(_PlainFlags, TyperCommand):
    """A command."""


class CommandGroup(_PlainFlags, TyperGroup):
    """A group of commands."""
