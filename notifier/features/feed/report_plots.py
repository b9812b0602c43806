"""Draws the plots of the report's page as inline SVG. Colours are variables of the page, so they follow its theme."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from notifier.features.feed.report import ClientFigures, DurationBar, TimeSlice
from notifier.features.feed.report_table import by_issuer, moment, seconds

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 56, 16, 14, 30
LABELS = 38  # above a plot with labels at its marks
TICKS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0)
FINE = (
    *(round(step * size, 4) for size in (0.0001, 0.001, 0.01, 0.1, 1.0) for step in (1, 2, 5)),
    *(10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0),
    *(hours * 3600.0 for hours in (1, 2, 4, 8, 12, 24, 48, 96, 168)),
)
MOST_TICKS = 9  # whose texts do not touch
ROW = 22  # of a plot with a row a client
NAMES, LONGEST = 272, 36  # the width of their names, and how many characters fit


def propagation_plot(bars: Sequence[DurationBar], median: float | None, p99: float | None) -> str:
    """Plot how many logouts took how long. The time axis is logarithmic."""
    if not bars:
        return _empty("No logout of this time has a known duration.")
    height = 220
    scale = _Log(bars[0].least, bars[-1].below)
    most = max(bar.count for bar in bars)
    floor = height - BOTTOM
    parts = [*_grid(scale, floor, LABELS), *_counts(most, floor, LABELS)]
    for bar in bars:
        left, right = scale(bar.least), scale(bar.below)
        tall = (floor - LABELS) * bar.count / most
        text = f"{bar.count:,} between {seconds(bar.least)} and {seconds(bar.below)}"
        parts.append(_rect(left + 0.5, floor - tall, right - left - 1, tall, "ok", text))
    for value, label, line in ((median, "median", 12), (p99, "p99", 28)):  # each on a line of its own, above the bars
        if value is not None:
            at = scale(value)
            parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{line - 10}" y2="{floor}"/>')
            side, shift = ("end", -4) if at > WIDTH / 2 else ("start", 4)
            parts.append(_text(at + shift, line, f"{label} {seconds(value)}", side))
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
    each_takes = bins[1].at - bins[0].at
    for number, side in ((0, "start"), (len(bins) // 2, "middle"), (len(bins), "end")):
        at = bins[0].at + number * each_takes
        parts.append(_text(LEFT + number * width, height - 10, f"{moment(at)[:16]} UTC", side))
    return _svg(height, "Given up and retried" if failures else "Delivered", parts)


def clients_plot(lines: Sequence[ClientFigures]) -> str:
    """Plot the median and the p99 of each client on one logarithmic axis, below its issuer."""
    timed = [line for line in lines if line.median is not None and line.p99 is not None]
    if not timed:
        return _empty("No logout of this time has a known duration.")
    scale = _Log(min(line.median or 0 for line in timed) / 1.3, max(line.p99 or 0 for line in timed) * 1.3, NAMES)
    rows: list[str] = []
    y = float(TOP)
    for iss, group in by_issuer([line for line in lines if line in timed or line.got_nothing]):
        rows.append(f'<text class="issuer" x="0" y="{y + 15:.1f}">{escape(iss)}</text>')
        y += ROW
        for line in group:
            rows += _client(line, scale, y + ROW / 2)
            y += ROW
    return _svg(y + BOTTOM, "Median and p99 of each client", [*_grid(scale, y), *rows])


def _client(line: ClientFigures, scale: "_Log", middle: float) -> Iterator[str]:
    name = line.client_id
    yield _text(NAMES - 10, middle + 4, name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…", "end", name)
    if line.median is None:
        yield f'<text class="nothing" x="{NAMES + 4}" y="{middle + 4:.1f}">nothing delivered</text>'
        return
    start, end = scale(line.median), scale(line.p99 or 0)
    told = escape(f"{name}: median {seconds(line.median)}, p99 {seconds(line.p99)}, slowest {seconds(line.slowest)}")
    yield (
        f"<g><title>{told}</title>"
        f'<line class="range" x1="{start:.1f}" x2="{end:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
        f'<circle class="ok" cx="{start:.1f}" cy="{middle:.1f}" r="4.5"/>'
        f'<circle class="p99" cx="{end:.1f}" cy="{middle:.1f}" r="4.5"/></g>'
    )


class _Log:
    """A logarithmic axis: from seconds to a place on it."""

    def __init__(self, least: float, most: float, left: float = LEFT) -> None:
        self.least, self.most, self.left = least, max(most, least * 2), left

    def __call__(self, value: float) -> float:
        share = math.log(max(value, self.least) / self.least) / math.log(self.most / self.least)
        return self.left + min(1.0, share) * (WIDTH - RIGHT - self.left)


def _grid(scale: _Log, floor: float, top: float = TOP) -> Iterator[str]:
    """Draw the time axis."""
    fine = [tick for tick in FINE if scale.least <= tick <= scale.most]
    for tick in fine if len(fine) <= MOST_TICKS else TICKS:
        if scale.least <= tick <= scale.most:
            at = scale(tick)
            yield f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{floor}"/>'
            yield _text(at, floor + 18, seconds(tick), "middle")


def _counts(most: int, floor: float, top: float = TOP) -> Iterator[str]:
    """Draw the axis of numbers, with its end and its half."""
    for share in (0.5, 1.0) if most > 1 else (1.0,):
        if most and (most * share).is_integer():
            at = floor - (floor - top) * share
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            yield _text(LEFT - 6, at + 4, f"{int(most * share):,}", "end")
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>'


def _rect(x: float, y: float, width: float, height: float, css: str, title: str) -> str:
    return (
        f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _text(x: float, y: float, text: str, anchor: str, title: str = "") -> str:
    told = f"<title>{escape(title)}</title>" if title else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}{told}</text>'


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _empty(text: str) -> str:
    return f'<p class="none">{escape(text)}</p>'
