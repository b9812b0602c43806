"""Tables, progress bars and pages on the terminal. Text is shown as it is, and no terminal obeys anything in it."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from notifier.cli.output import say
from notifier.domain.printable import printable_lines

PLAIN_EVERY = 2.0  # seconds between two lines of progress if stderr is no terminal


class Screen(Console):
    """A console that obeys nothing in the texts it shows: no markup, no emoji codes, no control characters."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, with control characters replaced."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)


def screen(*, err: bool = False, width: int | None = None) -> Screen:
    """The console of stdout or stderr. `width` is the number of columns if it is no terminal."""
    watched = (sys.stderr if err else sys.stdout).isatty()
    return Screen(stderr=err, width=None if watched else width, markup=False, emoji=False)


def table(*columns: str) -> Table:
    """An empty table. A column whose name ends with `:` holds numbers, to the right."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column.rstrip(":"), justify="right" if column.endswith(":") else "left", overflow="fold")
    return made


@contextmanager
def progress_of(what: str, *, plain: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show progress on stderr: a bar on a terminal, otherwise (if `plain`) a line now and then.

    The block gets a function to call with how much is done, and how much there is in all.
    """
    if not sys.stderr.isatty():
        due = time.monotonic() + PLAIN_EVERY

        def tell(done: int, total: int) -> None:
            nonlocal due
            if plain and done < total and time.monotonic() >= due:  # the end is said by the command itself
                due = time.monotonic() + PLAIN_EVERY
                say(f"{what}: {done:,} of {total:,}", err=True)

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen(err=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
