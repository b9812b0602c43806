"""Tables, pages, times and progress on the terminal. Text is shown as it is, and no terminal obeys it.

`output` measures the terminal, and `grid` lays out tables for that width.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from notifier.model.durations import format_in_words
from notifier.model.printable import printable_lines
from notifier.operators.terminal.grid import flow_lines
from notifier.operators.terminal.output import COMMAND_SPACE, count_columns, is_piped, say, wrap_text

PLAIN_INTERVAL_SECONDS = 2.0  # seconds between two lines of progress if there is no bar


class Screen(Console):
    """A console that obeys nothing in the texts it shows: no markup, no emoji codes, no control characters."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, with control characters replaced, and blanks for JOINT."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable_lines(segment.text.replace(COMMAND_SPACE, " ")), segment.style)

    def print(self, *objects: Any, **how: Any) -> None:
        """Print as rich does. Where nobody sees a terminal, no line ends with the blanks that fill a table's row."""
        if self.is_terminal:
            super().print(*objects, **how)
            return
        with self.capture() as captured:
            super().print(*objects, **how)
        self.file.write("\n".join(line.rstrip(" ") for line in captured.get().split("\n")))

    def say(self, text: str, style: str = "") -> None:
        """Print a line with a style. On a terminal it is broken between words, elsewhere never."""
        lines = wrap_text(printable_lines(text), self.width) if self.is_terminal else text
        self.print(lines, style=style, highlight=False, soft_wrap=True)

    def say_row(self, *parts: str) -> None:
        """Print parts side by side. On a terminal, parts that do not fit come on further lines."""
        row = "\n".join(flow_lines(parts, self.width)) if self.is_terminal else "  ".join(parts)
        self.print(row, highlight=False, soft_wrap=True)


def make_screen(*, err: bool = False, width: int = 120) -> Screen:
    """Return the console of stdout or stderr. `width`: columns without COLUMNS and a terminal."""
    return Screen(
        stderr=err,
        width=count_columns(sys.stderr if err else sys.stdout, width),
        markup=False,
        emoji=False,
        highlight=False,
    )


def format_age(moment: float | None, now: float) -> str:
    """Return how long ago it was."""
    return "–" if moment is None else f"{format_in_words(now - moment)} ago"


@contextmanager
def show_progress(what: str, *, plain: bool = True, rows: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show progress on stderr: a bar on a terminal, otherwise (if `plain`) a line now and then.

    The block gets a function to call with how much is done, and how much there is in all. There is no bar if another
    program reads stdout, since what that prints may come on the line of the bar. Nor is there a bar if the block prints
    `rows` on a terminal. Text that the block writes to stderr comes above the bar.
    """
    if rows and sys.stdout.isatty():
        yield lambda _done, _total: None
    elif not sys.stderr.isatty() or is_piped(sys.stdout):
        yield _print_progress(what) if plain else lambda _done, _total: None
    else:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=make_screen(err=True), transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_progress(what: str) -> Callable[[int, int], None]:
    due = time.monotonic() + PLAIN_INTERVAL_SECONDS

    def tell(done: int, total: int) -> None:
        nonlocal due
        if done < total and time.monotonic() >= due:  # the command itself prints the end
            due = time.monotonic() + PLAIN_INTERVAL_SECONDS
            say(f"{what}: {done:,} of {total:,}", err=True)

    return tell
