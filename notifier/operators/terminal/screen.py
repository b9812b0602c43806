"""Tables, pages and times on the terminal. Text is shown as it is, and no terminal obeys it.

`output` says how wide a terminal is, and `grid` lays out tables for that width.
"""

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from notifier.model.durations import in_words
from notifier.model.printable import printable_lines
from notifier.operators.terminal.grid import flowed
from notifier.operators.terminal.output import JOINT, columns, wrapped


class Screen(Console):
    """A console that obeys nothing in the texts it shows: no markup, no emoji codes, no control characters."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, with control characters replaced, and blanks for JOINT."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable_lines(segment.text.replace(JOINT, " ")), segment.style)

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
        lines = wrapped(printable_lines(text), self.width) if self.is_terminal else text
        self.print(lines, style=style, highlight=False, soft_wrap=True)

    def say_row(self, *parts: str) -> None:
        """Print parts side by side. On a terminal those that do not fit come on further lines."""
        row = "\n".join(flowed(parts, self.width)) if self.is_terminal else "  ".join(parts)
        self.print(row, highlight=False, soft_wrap=True)


def screen(*, err: bool = False, width: int = 120) -> Screen:
    """Return the console of stdout or stderr. `width`: columns if neither COLUMNS nor a terminal says it."""
    return Screen(
        stderr=err, width=columns(sys.stderr if err else sys.stdout, width), markup=False, emoji=False, highlight=False
    )


def ago(moment: float | None, now: float) -> str:
    """Return how long ago it was."""
    return "–" if moment is None else f"{in_words(now - moment)} ago"
