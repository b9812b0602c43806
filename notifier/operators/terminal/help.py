"""Turns functions into commands, and lists commands whose modules are imported only when they are called.

A function's docstring is the help of its command. Paragraphs are wrapped to the terminal. The docstring ends with
examples, each a comment line with its purpose and the line to type. typer formats the help without rich, since the
import of rich would take longer than the rest of `--help`.
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
    """Return a decorator that adds a function to the commands of a group, under the function's name."""

    def add(function: F) -> F:
        name = function.__name__.rstrip("_").replace("_", "-")
        return app.command(name, cls=Command, **_help_of(function))(function)

    return add


def command_group(app: typer.Typer) -> Callable[[F], F]:
    """Return a decorator that makes a function's docstring the help of a group of commands."""

    def describe(function: F) -> F:
        return app.callback(cls=CommandGroup, no_args_is_help=True, **_help_of(function))(function)

    return describe


def to_help(text: str) -> str:
    """Return the text without the backticks around words of code."""
    return _CODE.sub(r"\1", text)


def _help_of(function: Callable[..., None]) -> dict[str, Any]:
    """Return typer's arguments for the help: the docstring with one line per paragraph, and the examples as epilog."""
    text, _, examples = inspect.cleandoc(function.__doc__ or "").partition("\n\nExamples:\n")
    paragraphs = [to_help(" ".join(paragraph.split())) for paragraph in text.split("\n\n")]
    return {"help": "\n\n".join(paragraphs), "short_help": paragraphs[0], "epilog": textwrap.dedent(examples)}


class _PlainHelp:
    """Changes typer's help: a flag is shown without the type bool, and examples keep their lines."""

    epilog: str | None

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more | {"rich_markup_mode": None})

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters as typer does, but flags without a type. typer calls this method for the help too."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples unwrapped. typer calls this method at the end of the help."""
        del ctx
        with formatter.section("Examples"):
            formatter.write("".join(f"  {line}\n" for line in (self.epilog or "").splitlines()))


class Command(_PlainHelp, TyperCommand):
    """A command that refuses an empty value: most likely a script's variable is not set."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments as typer does. Raises BadParameter for an empty value."""
        unparsed = super().parse_args(ctx, args)
        for param in self.get_params(ctx):
            value = ctx.params.get(param.name)
            if value == "" or (isinstance(value, list | tuple) and "" in value):
                raise typer.BadParameter("must not be empty", ctx=ctx, param=param)
        return unparsed


class CommandGroup(_PlainHelp, TyperGroup):
    """A group of commands."""


class LazyCommand(TyperCommand):
    """A command, or a group of commands, whose module is imported only when it is called.

    The module contains a function of the command's name or, for a group, the variable `app`.
    """

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name=name, short_help=to_help(summary))
        self.module = module

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Return the context of the imported command. typer calls this method first when it runs a command."""
        return self.load().make_context(*arguments, **more)

    def load(self) -> Any:
        """Import the module, and return the command or group."""
        module, name = import_module(self.module), self.name or ""
        group = getattr(module, "app", None)
        if group is not None:
            return typer.main.get_group(group)
        single = typer.Typer(add_completion=False)
        command(single)(getattr(module, name.replace("-", "_")))
        return typer.main.get_command(single)
