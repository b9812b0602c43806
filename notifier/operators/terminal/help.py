"""Shows the help of commands: words of code in bold, no type for a flag, and examples at its end."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

_CODE = re.compile(r"`([^`]+)`")

Examples = tuple[tuple[str, str], ...]
"""What each is for, and the line to type."""


def in_help(examples: Examples) -> str:
    """The end of a command's help."""
    lines = [f"  [dim]# {escape(what)}[/]\n  {escape(line)}" for what, line in examples]
    return "\n".join(["[bold]Examples[/]", *lines])


def register(app: typer.Typer, command: Callable[..., None], examples: Examples) -> None:
    """Add a command under its function's name, its docstring the help: paragraphs flow, whatever the width."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    text = as_help("\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))
    app.command(command.__name__.rstrip("_").replace("_", "-"), cls=Command, help=text, epilog=in_help(examples))(
        command
    )


def as_help(text: str) -> str:
    """Text with words of code in bold instead of in backticks, for rich."""
    return _CODE.sub(r"[bold]\1[/]", escape(text))


class _PlainFlags:
    """Shows a flag without a type: typer would say that it takes a bool."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Of typer: what its help shows, too."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for each in params:
            if getattr(each, "is_flag", False):
                each.metavar = ""
        return params


class Command(_PlainFlags, TyperCommand):
    """A command."""


class CommandGroup(_PlainFlags, TyperGroup):
    """A group of commands."""
