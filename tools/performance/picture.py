"""A line chart as SVG, of a few points a line: no library is worth its weight for that.

The colours are readable on a white and on a dark page, and the lines also differ in their marks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 36, 48
COLOURS = ("#3b7dd8", "#d9822b", "#2a9d5c", "#b4479b", "#7a6f5d")
MIDDLE = 'text-anchor="middle"'
MARKS = ("circle", "square", "diamond", "circle", "square")


@dataclass(frozen=True, slots=True)
class Line:
    """Its name, and its points: (x, y, least y, greatest y)."""

    name: str
    points: Sequence[tuple[float, float, float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The labels and scale of a chart. `log_x`: each power of ten takes the same room."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log_x: bool = False


def svg(chart: Chart) -> str:
    """The picture. The y axis begins at 0, so that nothing looks steeper than it is."""
    xs = sorted({point[0] for line in chart.lines for point in line.points})
    most = max(point[3] for line in chart.lines for point in line.points)
    ticks = _ticks(most)

    def at_x(value: float) -> float:
        place = math.log10 if chart.log_x else float
        low, high = place(xs[0]), place(xs[-1])
        return LEFT + (WIDTH - LEFT - RIGHT) * ((place(value) - low) / (high - low) if high > low else 0.5)

    def at_y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / ticks[-1]

    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    middle = (TOP + bottom) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"',
        ' font-size="12" fill="#777" role="img">',
        f"<title>{escape(chart.title)}</title>",
        _text(chart.title, LEFT, 20, 'font-size="14"'),
        _text(chart.x, (LEFT + right) / 2, HEIGHT - 8, MIDDLE),
        _text(chart.y, 16, middle, f'{MIDDLE} transform="rotate(-90 16 {middle:.0f})"'),
    ]
    for tick in ticks:
        parts.append(_stroke((LEFT, at_y(tick)), (right, at_y(tick)), "#999"))
        parts.append(_text(f"{tick:,g}", LEFT - 6, at_y(tick) + 4, 'text-anchor="end"'))
    parts += [_text(_short(value), at_x(value), bottom + 18, MIDDLE) for value in xs]
    for number, line in enumerate(chart.lines):
        colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
        points = sorted(line.points)
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y, _, _ in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y, low, high in points:
            parts.append(_stroke((at_x(x), at_y(low)), (at_x(x), at_y(high)), colour))
            parts.append(_mark(mark, at_x(x), at_y(y), colour))
        y = TOP + 18 * number + 10
        parts.append(_mark(mark, right + 16, y - 4, colour))
        parts.append(_text(line.name, right + 26, y))
    return "\n".join([*parts, "</svg>", ""])


def _text(text: str, x: float, y: float, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'


def _stroke(begin: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    places = f'x1="{begin[0]:.1f}" y1="{begin[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
    return f'<line {places} stroke="{colour}" stroke-opacity=".6"/>'


def _ticks(most: float) -> list[float]:
    """From 0 to at least `most`, in steps of 1, 2 or 5 times a power of ten."""
    if most <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(most / 5))
    step = next(each * power for each in (1, 2, 5, 10) if each * power * 6 >= most)
    return [round(number * step, 9) for number in range(math.ceil(most / step) + 1)]


def _short(value: float) -> str:
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _mark(kind: str, x: float, y: float, colour: str) -> str:
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if kind == "diamond" else ""
    return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{colour}"{turn}/>'
