"""Lists a command by its name and one line. Its module is imported only when somebody types the command."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand

from notifier.operators.terminal.help import as_help, command


class LazyCommand(TyperCommand):
    """Stands for a command, or a group of commands, in the list of all.

    Its module holds either a function of its name, or, for a group, the application `app`.
    """

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name=name, short_help=as_help(summary))
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
