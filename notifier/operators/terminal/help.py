"""Turns functions into commands, and lists commands whose modules are imported only when somebody types them.

A docstring is the help, with examples at its end. Paragraphs flow, whatever the width. An example is a line,
`# what it is for`, and the line to type. typer lays the help out without rich, the import of which takes longer than
all else that `--help` does.
"""

import inspect
import re
import textwrap
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import typer
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


def to_help(text: str) -> str:
    """Return the text without the backticks around words of code."""
    return _CODE.sub(r"\1", text)


def _help_of(function: Callable[..., None]) -> dict[str, Any]:
    text, _, examples = inspect.cleandoc(function.__doc__ or "").partition("\n\nExamples:\n")
    flowing = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    shown = to_help(flowing)
    return {"help": shown, "short_help": shown.split("\n\n")[0], "epilog": textwrap.dedent(examples)}


class _PlainHelp:
    """Shows a flag without a type, where typer would show a bool, and an example on its own lines."""

    epilog: str | None

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more | {"rich_markup_mode": None})

    def get_params(self, ctx: Any) -> list[Any]:
        """Of typer: what its help shows, too."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Of typer, which would let the lines flow."""
        del ctx
        with formatter.section("Examples"):
            formatter.write("".join(f"  {line}\n" for line in (self.epilog or "").splitlines()))


class Command(_PlainHelp, TyperCommand):
    """A command. It refuses an empty option, which is most likely a variable of a script that is not set."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Of typer: read the arguments into the context."""
        left = super().parse_args(ctx, args)
        for param in self.get_params(ctx):
            value = ctx.params.get(param.name)
            if value == "" or (isinstance(value, list | tuple) and "" in value):
                raise typer.BadParameter("must not be empty", ctx=ctx, param=param)
        return left


class CommandGroup(_PlainHelp, TyperGroup):
    """A group of commands."""


class LazyCommand(TyperCommand):
    """Stands for a command, or a group of commands, in the list of all.

    Its module holds either a function of its name, or, for a group, the application `app`.
    """

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name=name, short_help=to_help(summary))
        self.module = module

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Return the context of the command itself: the first step in which typer runs it."""
        return self.load().make_context(*arguments, **more)

    def load(self) -> Any:
        """Import the command itself."""
        module, name = import_module(self.module), self.name or ""
        if (group := getattr(module, "app", None)) is not None:
            return typer.main.get_group(group)
        alone = typer.Typer(add_completion=False)
        command(alone)(getattr(module, name.replace("-", "_")))
        return typer.main.get_command(alone)
