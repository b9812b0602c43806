"""Lays out tables so that no word is broken and nothing is dropped, however narrow the terminal is."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAPS = (3, 2)  # between two columns; the narrow one where that helps
INDENT = (0, 0, 0, 1)
_TOGETHER = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class _Row:
    cells: tuple[str, ...]
    style: str
    of: str | None


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    right: bool
    width: int


class Grid:
    """A table. What does not fit side by side is shown row by row. A column without any text is left out.

    Rows may belong to issuers (`of`): each issuer heads its rows.
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
        kept = [nth for nth, name in enumerate(self._names) if not name or any(row.cells[nth] for row in self._rows)]
        rows = [_Row(tuple(row.cells[nth] for nth in kept), row.style, row.of) for row in self._rows]
        names = [self._names[nth] for nth in kept]
        yield Text()
        for gap in GAPS:
            if (columns := _columns(names, rows, width, gap)) is not None:
                yield from _side_by_side(columns, rows, gap)
                break
        else:
            yield from _row_by_row(names, rows, width)
        yield Text()


def _grouped(rows: Sequence[_Row]) -> Iterator[tuple[Text | None, list[_Row]]]:
    """Yield the rows of each issuer, in the order in which they first appear, and its heading."""
    found: dict[str | None, list[_Row]] = {}
    for row in rows:
        found.setdefault(row.of, []).append(row)
    headed = any(found)
    for of, group in found.items():
        yield Text(of or "(no issuer)", style="bold cyan") if headed and of is not None else None, group


def _columns(names: Sequence[str], rows: Sequence[_Row], width: int, gap: int) -> list[_Column] | None:
    """Say how wide each column is. None if a word would have to be broken."""
    texts = [[name.rstrip(":"), *(row.cells[nth] for row in rows)] for nth, name in enumerate(names)]
    wanted = [max(map(cell_len, column)) for column in texts]
    least = [max(cell_len(word) for text in column for word in text.split() or [""]) for column in texts]
    left = width - gap * (len(names) - 1) - sum(least)
    if left < 0:
        return None
    widths = list(least)
    # Those that want little more get it first.
    for turn, nth in enumerate(sorted(range(len(names)), key=lambda each: wanted[each] - least[each])):
        more = min(wanted[nth] - least[nth], left // (len(names) - turn))
        widths[nth] += more
        left -= more
    return [
        _Column(name.rstrip(":"), right=name.endswith(":"), width=each)
        for name, each in zip(names, widths, strict=True)
    ]


def _side_by_side(columns: Sequence[_Column], rows: Sequence[_Row], gap: int) -> Iterator[RenderableType]:
    yield _table(columns, (), gap)
    for heading, group in _grouped(rows):
        if group[0].of is None:
            yield Padding("─" * (sum(each.width for each in columns) + gap * (len(columns) - 1)), INDENT)
        if heading is not None:
            yield Padding(heading, INDENT)
        yield _table(columns, group, gap)


def _table(columns: Sequence[_Column], rows: Sequence[_Row], gap: int) -> Padding:
    """Make the rows, or without any the head."""
    around = (0, gap // 2, 0, (gap - 1) // 2)
    made = Table(box=SIMPLE_HEAD, show_header=not rows, show_edge=False, pad_edge=False, padding=around)
    for each in columns:
        made.add_column(each.name, justify="right" if each.right else "left", width=each.width, overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row.cells), style=row.style)
    return Padding(made, INDENT)


def _row_by_row(names: Sequence[str], rows: Sequence[_Row], width: int) -> Iterator[RenderableType]:
    """The first cell of each, and below it the others with the names of their columns."""
    for heading, group in _grouped(rows):
        if heading is not None:
            yield Padding(heading, INDENT)
        for row in group:
            told = []
            for name, cell in list(zip(names, row.cells, strict=True))[1:]:
                if cell and cell != "–":
                    told.append(f"{name.rstrip(':')}: {cell}" if name else cell)
            lines = [row.cells[0], *(f"  {line}" for line in flowed(told, width - 2))]
            yield Padding(Text("\n".join(lines), row.style), INDENT)


def flowed(parts: Sequence[str], width: int) -> list[str]:
    """Lines of parts with a gap between them. A part is broken only if it is longer than a line."""
    joined = (" " * GAPS[0]).join(
        part.replace(" ", _TOGETHER) if cell_len(part) <= width - 2 else part for part in parts
    )
    lines = textwrap.wrap(joined, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [line.replace(_TOGETHER, " ") for line in lines]
