"""Draws what the dashboard's panels show of the last minutes, as SVG. Grafana draws the same queries in its own way."""

import importlib
import json
import os
import re
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from notifier.model.durations import in_words
from tests.monitoring.prometheus_server import Prometheus
from tools.dashboard_panels import Panel, panels

SECONDS, STEP = 120, 2  # drawn
TILES = 8  # of the first row
DRAWN = (
    "Attempts by what they met",
    "Deliveries settled",
    "Deferrals by cause",
    "The same, by percentile",
    "Waiting by client",
    "Logouts by client",
)
WIDE, HIGH, TILE = 400, 210, 70  # pixels of a panel, and of a tile of the first row
COLOURS = ("#56a64b", "#e02f44", "#3274d9", "#ff9830", "#a352cc", "#37872d", "#fade2a", "#8f3bb8")
STYLE: dict[str, Any] = {
    "background": "#ffffff", "plot_background": "#ffffff", "colors": COLOURS, "font_family": "system-ui, sans-serif",
    "opacity": ".4",
    "foreground": "#555555", "foreground_strong": "#222222", "foreground_subtle": "#dddddd", "transition": "0s",
    "title_font_size": 14, "label_font_size": 10, "legend_font_size": 11, "guide_stroke_dasharray": "1,0",
    "major_guide_stroke_dasharray": "1,0", "guide_stroke_color": "#eeeeee", "major_guide_stroke_color": "#dddddd",
}  # fmt: skip


async def draw(server: Prometheus, variables: dict[str, str]) -> str:
    """The picture."""
    now = time.time()
    by_title = {panel.title: panel for panel in panels()}
    parts = [
        await _tile(server, variables, panel, nth)
        for nth, panel in enumerate(panel for panel in panels() if panel.kind == "stat")
    ]
    for nth, title in enumerate(DRAWN):
        plot = await _plot(server, variables, by_title[title], now)
        at = f'x="{nth % 3 * WIDE}" y="{TILE + nth // 3 * HIGH}" width="{WIDE}" height="{HIGH}" '
        parts.append(plot.replace("<svg ", f"<svg {at}", 1))
    size = f"{3 * WIDE} {TILE + 2 * HIGH}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="system-ui, sans-serif">'
        f'<title>The dashboard</title><rect width="100%" height="100%" fill="#f4f5f5"/>{"".join(parts)}</svg>\n'
    )


def keep(svg: str, folder: Path) -> None:
    """Write it: into the documents if they are made, else into the folder."""
    Path(os.environ.get("NOTIFIER_TEST_PICTURES") or folder, "dashboard.svg").write_text(svg)


def _query(text: str, variables: dict[str, str]) -> str:
    for name, value in variables.items():
        text = text.replace(name, value)
    return text


async def _tile(server: Prometheus, variables: dict[str, str], panel: Panel, nth: int) -> str:
    found = await server.query(_query(panel.queries[0][0], variables))
    value = float(found[0]["value"][1]) if found else None
    colour = "#555555"
    for least, name in panel.steps:
        if value is not None and (least is None or value >= least):
            colour = {"green": "#37872d", "orange": "#ff780a", "red": "#e02f44"}[name]
    width = 3 * WIDE / TILES
    return (
        f'<g transform="translate({nth * width:g} 0)" text-anchor="middle">'
        f'<rect x="3" y="3" width="{width - 6:g}" height="{TILE - 6}" fill="#ffffff"/>'
        f'<text x="{width / 2:g}" y="20" font-size="11" fill="#222222">{escape(panel.title)}</text>'
        f'<text x="{width / 2:g}" y="50" font-size="22" fill="{colour}">{_worded(value, panel.unit)}</text></g>'
    )


def _worded(value: float | None, unit: str) -> str:
    match unit:
        case _ if value is None:
            return "–"
        case "percentunit":
            return f"{100 * value:.4g} %"
        case "s":
            return in_words(value) if value >= 60 else f"{1000 * value:.0f} ms" if value < 1 else f"{value:.3g} s"
        case "ops":
            return f"{value:.3g}/s"
        case _:
            return f"{value:.0f}"


async def _plot(server: Prometheus, variables: dict[str, str], panel: Panel, now: float) -> str:
    pygal = importlib.import_module("pygal")  # not while pytest collects: its hook for imports stops that
    kind = pygal.StackedLine if panel.kind == "areas" else pygal.Line
    plot = kind(
        style=pygal.style.Style(**STYLE),
        width=WIDE, height=HIGH, title=panel.title, fill=panel.kind == "areas", show_dots=False, js=(),
        x_labels=[f"{second} s" for second in range(-SECONDS, 1, STEP)], x_labels_major_every=15,
        show_minor_x_labels=False, legend_at_bottom=True, legend_box_size=8, margin=8, min_scale=3, max_scale=4,
        include_x_axis=True, disable_xml_declaration=True, truncate_legend=-1, truncate_label=-1,
        value_formatter=lambda value: f"{value:.3g}",
    )  # fmt: skip
    for query, legend in panel.queries:
        times = {"start": f"{now - SECONDS:.0f}", "end": f"{now:.0f}", "step": "1"}
        data = await server.get("/api/v1/query_range", query=_query(query, variables), **times)
        for series in data["result"]:
            values = _values(series["values"], int(now))
            if any(values):
                plot.add(_named(legend, series["metric"]), values)
    svg: str = plot.render(is_unicode=True)
    svg = re.sub(r"<script.*?</script>|<!--.*?-->", "", svg, flags=re.DOTALL)
    return re.sub(r"(\d\.\d)\d+", r"\1", svg)


def _named(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend) or json.dumps(labels)


def _values(points: Sequence[tuple[float, str]], now: int) -> list[float | None]:
    """A value for each step; None where there is none."""
    by_second = {int(at) - now: float(value) for at, value in points if value != "NaN"}
    return [by_second.get(second) for second in range(-SECONDS, 1, STEP)]
