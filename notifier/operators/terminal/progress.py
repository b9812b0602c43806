"""Shows the progress of long work on stderr: by a bar on a terminal, elsewhere by a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from notifier.operators.terminal.output import piped, say
from notifier.operators.terminal.screen import screen

PLAIN_EVERY = 2.0  # seconds between two lines of progress if there is no bar


@contextmanager
def progress_of(what: str, *, plain: bool = True, rows: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show progress on stderr: a bar on a terminal, otherwise (if `plain`) a line now and then.

    The block gets a function to call with how much is done, and how much there is in all. There is no bar if another
    program reads stdout, since what that prints may come on the line of the bar. Nor is there a bar if the block prints
    `rows` on a terminal. Text that the block writes to stderr comes above the bar.
    """
    if rows and sys.stdout.isatty():
        yield lambda _done, _total: None
    elif not sys.stderr.isatty() or piped(sys.stdout):
        yield _plain(what) if plain else lambda _done, _total: None
    else:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=screen(err=True), transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain(what: str) -> Callable[[int, int], None]:
    due = time.monotonic() + PLAIN_EVERY

    def tell(done: int, total: int) -> None:
        nonlocal due
        if done < total and time.monotonic() >= due:  # the end is said by the command itself
            due = time.monotonic() + PLAIN_EVERY
            say(f"{what}: {done:,} of {total:,}", err=True)

    return tell
