"""Draws the plots of the report's page as inline SVG. Colours are variables of the page, so they follow its theme."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from notifier.cli.report_table import moment, name_of, seconds
from notifier.operations.report import ClientFigures, DurationBar, TimeSlice

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 56, 16, 14, 30
TICKS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0)
ROW = 22  # of a plot with a row a client


def propagation_plot(bars: Sequence[DurationBar], median: float | None, p99: float | None) -> str:
    """Plot how many logouts took how long. The time axis is logarithmic."""
    if not bars:
        return _empty("No logout of this time has a known duration.")
    height = 220
    scale = _Log(bars[0].least, bars[-1].below)
    most = max(bar.count for bar in bars)
    floor = height - BOTTOM
    parts = [*_grid(scale, floor), *_counts(most, floor)]
    for bar in bars:
        left, right = scale(bar.least), scale(bar.below)
        tall = (floor - TOP) * bar.count / most
        text = f"{bar.count:,} between {seconds(bar.least)} and {seconds(bar.below)}"
        parts.append(_rect(left + 0.5, floor - tall, right - left - 1, tall, "ok", text))
    for value, label in ((median, "median"), (p99, "p99")):
        if value is not None:
            at = scale(value)
            parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{floor}"/>')
            side, shift = ("end", -4) if at > WIDTH / 2 else ("start", 4)
            parts.append(_text(at + shift, TOP + (2 if label == "median" else 16), f"{label} {seconds(value)}", side))
    return _svg(height, "How long logouts took", parts)


def timeline_plot(bins: Sequence[TimeSlice], *, failures: bool) -> str:
    """Plot what happened when: what was given up and retried if `failures`, else what was delivered."""
    height = 130
    floor = height - BOTTOM
    most = max((each.dead + each.retries if failures else each.delivered) for each in bins)
    width = (WIDTH - LEFT - RIGHT) / len(bins)
    parts = list(_counts(most, floor))
    for number, each in enumerate(bins):
        left, base = LEFT + number * width, float(floor)
        stack = (("dead", each.dead), ("retries", each.retries)) if failures else (("delivered", each.delivered),)
        for kind, count in stack:
            if count:
                tall = (floor - TOP) * count / most
                base -= tall
                css = {"dead": "bad", "retries": "warn", "delivered": "ok"}[kind]
                parts.append(_rect(left + 0.5, base, width - 1, tall, css, f"{moment(each.at)}: {count:,} {kind}"))
    for number in (0, len(bins) // 2, len(bins) - 1):
        side = ("start", "middle", "end")[(number > 0) + (number == len(bins) - 1)]
        parts.append(_text(LEFT + (number + (side == "end")) * width, height - 10, moment(bins[number].at)[:16], side))
    return _svg(height, "Given up and retried" if failures else "Delivered", parts)


def clients_plot(lines: Sequence[ClientFigures], *, several: bool) -> str:
    """Plot the median and the p99 of each client on one logarithmic axis."""
    timed = [line for line in lines if line.median is not None and line.p99 is not None]
    if not timed:
        return _empty("No logout of this time has a known duration.")
    left = 220
    scale = _Log(min(line.median or 0 for line in timed) / 1.3, max(line.p99 or 0 for line in timed) * 1.3, left)
    floor = TOP + ROW * len(timed)
    parts = list(_grid(scale, floor))
    for number, line in enumerate(timed):
        middle = TOP + ROW * (number + 0.5)
        name = name_of(line, several=several)
        start, end = scale(line.median or 0), scale(line.p99 or 0)
        parts.append(_text(left - 10, middle + 4, name if len(name) <= 32 else name[:31] + "…", "end"))
        told = escape(
            f"{name}: median {seconds(line.median)}, p99 {seconds(line.p99)}, slowest {seconds(line.slowest)}"
        )
        parts.append(
            f"<g><title>{told}</title>"
            f'<line class="range" x1="{start:.1f}" x2="{end:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
            f'<circle class="ok" cx="{start:.1f}" cy="{middle:.1f}" r="4.5"/>'
            f'<circle class="p99" cx="{end:.1f}" cy="{middle:.1f}" r="4.5"/></g>'
        )
    return _svg(floor + BOTTOM, "Median and p99 of each client", parts)


class _Log:
    """A logarithmic axis: from seconds to a place on it."""

    def __init__(self, least: float, most: float, left: float = LEFT) -> None:
        self.least, self.most, self.left = least, max(most, least * 2), left

    def __call__(self, value: float) -> float:
        share = math.log(max(value, self.least) / self.least) / math.log(self.most / self.least)
        return self.left + min(1.0, share) * (WIDTH - RIGHT - self.left)


def _grid(scale: _Log, floor: float) -> Iterator[str]:
    """Draw the time axis."""
    for tick in TICKS:
        if scale.least <= tick <= scale.most:
            at = scale(tick)
            yield f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{floor}"/>'
            yield _text(at, floor + 18, seconds(tick), "middle")


def _counts(most: int, floor: float) -> Iterator[str]:
    """Draw the axis of numbers, with its end and its half."""
    for share in (0.5, 1.0) if most > 1 else (1.0,):
        if most and (most * share).is_integer():
            at = floor - (floor - TOP) * share
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            yield _text(LEFT - 6, at + 4, f"{int(most * share):,}", "end")
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>'


def _rect(x: float, y: float, width: float, height: float, css: str, title: str) -> str:
    return (
        f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _empty(text: str) -> str:
    return f'<p class="none">{escape(text)}</p>'
