"""Prints tables and colours on the terminal. Control characters in texts are replaced, so that none takes effect."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from notifier.model.printable import printable, printable_lines

GAP = "   "  # between two columns
MAX_COLUMN_WIDTH = 80  # columns; a longer cell, such as a name from a publisher, widens only its row


class Screen(Console):
    """A console that interprets nothing in texts: no markup, no emoji codes, no control characters."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, with control characters replaced."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)


def make_screen() -> Screen:
    """Return a console for stdout that does not wrap lines."""
    return Screen(markup=False, emoji=False, highlight=False, soft_wrap=True)


class _Row(NamedTuple):
    cells: Sequence[str]
    style: str


class Grid:
    """A table with one line for each row. A column without any text is left out, unless it has no name.

    A column whose name ends with `:` is aligned to the right. Rows of an issuer are grouped below its name.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._groups: dict[str, list[_Row]] = {}

    def add_row(self, *cells: str, style: str = "", issuer: str = "") -> None:
        """Add a row. Control characters in its cells, such as line breaks, are replaced."""
        self._groups.setdefault(printable(issuer), []).append(_Row([printable(cell) for cell in cells], style))

    def __rich_console__(self, _console: object, _options: object) -> Iterator[RenderableType]:
        """Yield the lines of the table, with an empty line before and after. Rich calls this method to print it."""
        heads = [name.rstrip(":") for name in self._names]
        columns = list(zip(*(row.cells for rows in self._groups.values() for row in rows), strict=True))
        widths = [
            max(width for text in (head, *column) if (width := cell_len(text)) <= MAX_COLUMN_WIDTH)
            for head, column in zip(heads, columns, strict=False)  # without rows there are no columns
        ]
        shown = [nth for nth, column in enumerate(columns) if not self._names[nth] or any(column)]

        def format_line(cells: Sequence[str]) -> str:
            padded = []
            for nth in shown:
                blanks = " " * (widths[nth] - cell_len(cells[nth]))
                padded.append(blanks + cells[nth] if self._names[nth].endswith(":") else cells[nth] + blanks)
            return f" {GAP.join(padded)}".rstrip()

        yield Text(f"\n{format_line(heads)}\n " + "─" * (sum(widths[nth] + len(GAP) for nth in shown) - len(GAP)))
        for issuer, rows in self._groups.items():
            if any(self._groups):  # if any row has an issuer
                yield Text(f" {issuer or '(no issuer)'}", style="bold cyan")
            yield from (Text(format_line(row.cells), row.style) for row in rows)
        yield Text()
