"""A command of which only the name and a line are known until somebody types it: then its module is imported."""

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

    def make_context(self, *given: Any, **more: Any) -> Any:
        """Of typer: the first step of running it. The context is that of the command itself."""
        return self.load().make_context(*given, **more)

    def load(self) -> Any:
        """Import the command itself."""
        module, name = import_module(self.module), self.name or ""
        if (group := getattr(module, "app", None)) is not None:
            return typer.main.get_group(group)
        alone = typer.Typer(add_completion=False)
        command(alone)(getattr(module, name.replace("-", "_")))
        return typer.main.get_command(alone)
