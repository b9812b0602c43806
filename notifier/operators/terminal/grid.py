"""Lays out tables so that no word is broken and nothing is dropped, however narrow the terminal is."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAPS = (3, 2)  # between two columns; the narrow one where that helps
_NO_BREAK = "\N{NO-BREAK SPACE}"


class _Row(NamedTuple):
    cells: tuple[str, ...]
    style: str
    group: str | None


class Grid:
    """A table. Columns that do not fit side by side are shown row by row. A column without any text is left out.

    A column whose name ends with `:` has numbers, to the right. Rows may belong to issuers (`group`), which head them.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._rows: list[_Row] = []

    def add_row(self, *cells: str, style: str = "", of: str = "") -> None:
        """Add a row."""
        self._rows.append(_Row(cells, style, of))

    def add_sum(self, *cells: str) -> None:
        """Add the last row, which belongs to no group."""
        self._rows.append(_Row(cells, "bold", None))

    def __rich_console__(self, _console: object, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Lay it out, with an empty line before and after."""
        width = options.max_width - 1
        columns = [nth for nth, name in enumerate(self._names) if not name or any(row.cells[nth] for row in self._rows)]
        rows = [row._replace(cells=tuple(row.cells[nth] for nth in columns)) for row in self._rows]
        names = [self._names[nth] for nth in columns]
        lines = _render_rows(names, rows, width)
        for gap in GAPS:
            if widths := _compute_widths(names, rows, width, gap):
                lines = _render_table(names, rows, widths, gap)
                break
        yield Text()
        yield from (Padding(line, (0, 0, 0, 1)) for line in lines)
        yield Text()


def _group_rows(rows: Sequence[_Row]) -> Iterator[tuple[Text | None, list[_Row]]]:
    """Yield the rows of each issuer, in the order in which they first appear, and its heading."""
    groups: dict[str | None, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    headed = any(groups)
    for of, group in groups.items():
        yield Text(of or "(no issuer)", style="bold cyan") if headed and of is not None else None, group


def _compute_widths(names: Sequence[str], rows: Sequence[_Row], width: int, gap: int) -> list[int]:
    """How wide each column is. Empty if a word would have to be broken."""
    texts = [[name.rstrip(":"), *(row.cells[nth] for row in rows)] for nth, name in enumerate(names)]
    wanted = [max(map(cell_len, column)) for column in texts]
    widths = [max(cell_len(word) for text in column for word in text.split() or [""]) for column in texts]
    left = width - gap * (len(names) - 1) - sum(widths)
    if left < 0:
        return []
    # Those that want little more get it first.
    for turn, nth in enumerate(sorted(range(len(names)), key=lambda column: wanted[column] - widths[column])):
        more = min(wanted[nth] - widths[nth], left // (len(names) - turn))
        widths[nth] += more
        left -= more
    return widths


def _render_table(
    names: Sequence[str], rows: Sequence[_Row], widths: Sequence[int], gap: int
) -> Iterator[RenderableType]:
    def part(shown: Sequence[_Row]) -> Table:
        """These rows, or without any the head."""
        around = (0, gap // 2, 0, (gap - 1) // 2)
        table = Table(box=SIMPLE_HEAD, show_header=not shown, show_edge=False, pad_edge=False, padding=around)
        for name, width in zip(names, widths, strict=True):
            justify: Literal["left", "right"] = "right" if name.endswith(":") else "left"
            table.add_column(name.rstrip(":"), justify=justify, width=width, overflow="fold")
        for row in shown:
            table.add_row(*map(Text, row.cells), style=row.style)
        return table

    yield part(())
    for heading, group in _group_rows(rows):
        if group[0].group is None:
            yield Text("─" * (sum(widths) + gap * (len(widths) - 1)))
        if heading is not None:
            yield heading
        for row in group:
            yield _format_line(names, row, widths, gap) or part([row])


def _format_line(names: Sequence[str], row: _Row, widths: Sequence[int], gap: int) -> Text | None:
    """Return a row of which each cell fits into its column: a separate table takes three times as long."""
    padded = []
    for name, cell, width in zip(names, row.cells, widths, strict=True):
        if (spare := width - cell_len(cell)) < 0 or "\n" in cell:
            return None
        padded.append(" " * spare + cell if name.endswith(":") else cell + " " * spare)
    return Text((" " * gap).join(padded), row.style)


def _render_rows(names: Sequence[str], rows: Sequence[_Row], width: int) -> Iterator[RenderableType]:
    """The first cell of each, and below it the others with the names of their columns."""
    for heading, group in _group_rows(rows):
        if heading is not None:
            yield heading
        for row in group:
            cells = [
                f"{name.rstrip(':')}: {cell}" if name else cell
                for name, cell in zip(names[1:], row.cells[1:], strict=True)
                if cell not in ("", "–")
            ]
            lines = [row.cells[0], *(f"  {line}" for line in flow_lines(cells, width - 2))]
            yield Text("\n".join(lines), row.style)


def flow_lines(parts: Sequence[str], width: int) -> list[str]:
    """Return lines of parts with a gap between them. A part is broken only if it is longer than a line."""
    joined = (" " * GAPS[0]).join(
        part.replace(" ", _NO_BREAK) if cell_len(part) <= width - 2 else part for part in parts
    )
    lines = textwrap.wrap(joined, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in lines]
