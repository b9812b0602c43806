"""Tables, bars and pages as rich draws them, of texts that are shown as they are."""

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from notifier.domain.printable import printable_lines


class Screen(Console):
    """A console on which nothing from outside is obeyed, neither by rich (markup, emoji codes) nor by the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does it."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)


def screen(*, err: bool = False, width: int | None = None) -> Screen:
    """Of stdout, or of stderr. `width`: in columns, where it is no terminal."""
    watched = (sys.stderr if err else sys.stdout).isatty()
    return Screen(stderr=err, width=None if watched else width, markup=False, emoji=False)
