"""Draws the plots of the report's page as SVG by pygal. Colours are variables of the page, so they follow its theme."""

from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from pygal import Bar, HorizontalBar, StackedBar
from pygal.style import Style

from notifier.features.feed.report import ClientFigures, DurationBar, TimeSlice
from notifier.features.feed.report_table import by_issuer, moment, seconds

TICKS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0)
ROW = 36  # of a client, who has two bars
LONGEST = 36  # characters of a client's name
_OK, _WARN, _BAD, _P99 = (f"var(--{name})" for name in ("ok", "warn", "bad", "p99"))


def propagation_plot(bars: Sequence[DurationBar]) -> str:
    """Plot how many logouts took how long: two bars for each doubling of the time."""
    plot = _plot(Bar, 220, (_OK,))
    plot.x_labels = [seconds(bar.least) for bar in bars]
    plot.x_labels_major = plot.x_labels[:: max(1, len(bars) // 10)]
    texts = [f"{bar.count:,} between {seconds(bar.least)} and {seconds(bar.below)}" for bar in bars]
    plot.add("delivered", _points([bar.count for bar in bars], texts))
    return _svg(plot, "How long logouts took")


def timeline_plot(slices: Sequence[TimeSlice], kinds: Iterable[str]) -> str:
    """Plot when events of these kinds happened."""
    colours = {"delivered": _OK, "dead": _BAD, "retries": _WARN}
    plot = _plot(StackedBar, 130, tuple(colours[kind] for kind in kinds))
    plot.x_labels = [f"{moment(interval.at)[:16]} UTC" for interval in slices]
    plot.x_labels_major = plot.x_labels[len(slices) // 8 :: len(slices) // 4]
    for kind in kinds:
        counts = [getattr(interval, kind) for interval in slices]
        texts = [f"{moment(interval.at)}: {count:,} {kind}" for interval, count in zip(slices, counts, strict=True)]
        plot.add(kind, _points([count or None for count in counts], texts))
    return _svg(plot, "What happened when")


def client_plots(clients: Sequence[ClientFigures]) -> list[tuple[str, str]]:
    """Plot the median and the p99 of each client, a plot for each issuer, all on the same logarithmic axis."""
    times = [figure for client in clients for figure in (client.median, client.p99) if figure is not None]
    if not times:
        return []
    axis = (min(times) / 2, max(times) * 1.3)
    shown = [client for client in clients if client.median is not None or client.got_nothing]
    return [(iss, _clients_plot(group[::-1], axis)) for iss, group in by_issuer(shown)]


def _clients_plot(clients: Sequence[ClientFigures], axis: tuple[float, float]) -> str:
    """The last client comes first: rows are drawn from below."""
    plot = _plot(HorizontalBar, 40 + ROW * len(clients), (_P99, _OK))
    plot.logarithmic, plot.range, plot.zero = True, axis, axis[0]
    plot.truncate_label, plot.show_minor_x_labels = LONGEST, True
    plot.x_labels = [
        f"nothing delivered: {client.client_id}" if client.median is None else client.client_id for client in clients
    ]
    plot.y_labels = [{"value": tick, "label": seconds(tick)} for tick in TICKS if axis[0] <= tick <= axis[1]]
    texts = [
        f"{client.client_id}: median {seconds(client.median)}, p99 {seconds(client.p99)}"
        f", slowest {seconds(client.slowest)}"
        for client in clients
    ]
    plot.add("p99", _points([client.p99 for client in clients], texts))
    plot.add("median", _points([client.median for client in clients], texts))
    return _svg(plot, "Median and p99 of each client")


def _points(values: Sequence[float | None], texts: Sequence[str]) -> list[dict[str, Any]]:
    """Values, each with what is said of it where the pointer rests."""
    return [{"value": value, "tooltip": text} for value, text in zip(values, texts, strict=True)]


def _plot(kind: Any, height: int, colours: tuple[str, ...]) -> Any:
    style = Style(
        background="transparent", plot_background="transparent", foreground="var(--dim)",
        foreground_strong="var(--text)", foreground_subtle="var(--line)", guide_stroke_color="var(--line)",
        major_guide_stroke_color="var(--line)", opacity="1", opacity_hover="1", transition="0s", colors=colours,
        font_family="system-ui, sans-serif",
    )  # fmt: skip
    return kind(
        style=style, width=1000, height=height, margin=6, js=(), show_legend=False, show_minor_x_labels=False,
        truncate_label=-1, min_scale=2, max_scale=5, disable_xml_declaration=True,
    )  # fmt: skip


def _svg(plot: Any, label: str) -> str:
    plot.add_xml_filter(lambda root: _plain(root, label))
    drawn: str = plot.render(is_unicode=True)
    return drawn


def _plain(root: Element, label: str) -> Element:
    """The same named for screen readers, and without pygal's own script, which shows its tooltips: browsers do."""
    for part in list(root.iter()):
        for script in part.findall("script"):
            part.remove(script)
    if (title := root.find("title")) is not None:
        title.text = label
    return root
