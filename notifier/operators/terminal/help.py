"""Shows the help of commands: plain words instead of markup, and no type for a flag."""

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
    app.command(command.__name__.replace("_", "-"), cls=Command, help=text, epilog=in_help(examples))(command)


def as_help(text: str) -> str:
    """Text with words of code in bold instead of in backticks, for rich."""
    return _CODE.sub(r"[bold]\1[/]", escape(text))


class Command(TyperCommand):
    """A command whose options are shown in plain words."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Of typer: what its help shows, too."""
        return [_plain(param) for param in super().get_params(ctx)]


class CommandGroup(TyperGroup):
    """Likewise for a group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Of typer: what its help shows, too."""
        return [_plain(param) for param in super().get_params(ctx)]


def _plain(param: Any) -> Any:
    if param.metavar is None and param.param_type_name == "option":
        param.metavar = _kind(param)
    elif param.param_type_name == "argument":
        param.display_type_rich = _no_type
    if param.help and "`" in param.help:
        param.help = as_help(param.help)
    return param


def _no_type(ctx: Any) -> None:
    """The name of an argument says what it is."""


def _kind(param: Any) -> str | None:
    """What an option takes: nothing if it is a flag. None: typer says it, as for a choice."""
    if param.is_flag:
        return ""
    of = param.type_descriptor
    if of.is_choice:
        return None
    if of.is_path:
        return "FILE"
    return "NUMBER" if of.is_ranged or of.annotation in (int, float) else "TEXT"
