"""Tables and colours on the terminal. Text is shown as it is, and no terminal obeys it."""

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
    """A console that obeys nothing in the texts it shows: no markup, no emoji codes, no control characters."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, with control characters replaced."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)


def make_screen() -> Screen:
    """Return the console of stdout. It breaks no line."""
    return Screen(markup=False, emoji=False, highlight=False, soft_wrap=True)


class _Row(NamedTuple):
    cells: Sequence[str]
    style: str


class Grid:
    """A table with a line for each row. A column without any text is left out.

    A column whose name ends with `:` has numbers, to the right. Rows may belong to issuers (`of`), which head them.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._groups: dict[str, list[_Row]] = {}

    def add_row(self, *cells: str, style: str = "", of: str = "") -> None:
        """Add a row, which remains one line whatever its cells contain."""
        self._groups.setdefault(printable(of), []).append(_Row([printable(cell) for cell in cells], style))

    def __rich_console__(self, _console: object, _options: object) -> Iterator[RenderableType]:
        """Lay it out, with an empty line before and after."""
        heads = [name.rstrip(":") for name in self._names]
        columns = list(zip(*(row.cells for rows in self._groups.values() for row in rows), strict=True))
        widths = [
            max(width for text in (head, *column) if (width := cell_len(text)) <= MAX_COLUMN_WIDTH)
            for head, column in zip(heads, columns, strict=False)
        ]
        shown = [nth for nth, column in enumerate(columns) if not self._names[nth] or any(column)]

        def line(cells: Sequence[str]) -> str:
            padded = []
            for nth in shown:
                blanks = " " * (widths[nth] - cell_len(cells[nth]))
                padded.append(blanks + cells[nth] if self._names[nth].endswith(":") else cells[nth] + blanks)
            return f" {GAP.join(padded)}".rstrip()

        yield Text(f"\n{line(heads)}\n " + "─" * (sum(widths[nth] + len(GAP) for nth in shown) - len(GAP)))
        for of, rows in self._groups.items():
            if any(self._groups):
                yield Text(f" {of or '(no issuer)'}", style="bold cyan")
            yield from (Text(line(row.cells), row.style) for row in rows)
        yield Text()
