"""The Grafana dashboard from its panels: `make dashboard` writes it to deploy/grafana/notifier.json."""

import sys
from itertools import count
from typing import assert_never

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, StackingMode
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from tools.dashboard_panels import MARKS, ROWS, RUNBOOK, Mark, Panel

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
Builder = stat.Panel | timeseries.Panel | heatmap.Panel | table.Panel | statetimeline.Panel


def _target(panel: Panel, index: int) -> prometheus.Dataquery:
    expr, legend = panel.queries[index]
    target = prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").ref_id("ABCDEFGH"[index])
    if panel.kind == "table":
        return target.instant().format(PromQueryFormat.TABLE)
    return target.range().format(PromQueryFormat.HEATMAP if panel.kind == "heatmap" else PromQueryFormat.TIME_SERIES)


def _empty(panel: Panel) -> Builder:
    match panel.kind:
        case "stat":
            calculated = common.ReduceDataOptions().calcs(["lastNotNull"])
            return stat.Panel().reduce_options(calculated).graph_mode(BigValueGraphMode.AREA)
        case "lines":
            return timeseries.Panel().line_width(1).fill_opacity(0)
        case "areas":
            stacked = common.StackingConfig().mode(StackingMode.NORMAL).group("A")
            return timeseries.Panel().line_width(1).fill_opacity(40).stacking(stacked)
        case "heatmap":
            options = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(32)
            return heatmap.Panel().calculate(calculate=False).color(options)
        case "table":
            hidden = {"Time": True, "namespace": True, "job": True}
            return table.Panel().with_transformation(
                DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})
            )
        case "states":
            return statetimeline.Panel()
        case _:
            assert_never(panel.kind)


def _build(panel: Panel) -> Builder:
    builder = _empty(panel).title(panel.title).unit(panel.unit).datasource(SOURCE)
    builder.span(panel.width).height(4 if panel.kind == "stat" else 8)
    if panel.text:
        builder.description(panel.text)
    if panel.steps:
        steps = [Threshold(value=value, color=color) for value, color in panel.steps]
        builder.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    if panel.read:
        builder.data_links([_runbook("Runbook", panel.read)])
    for index in range(len(panel.queries)):
        builder.with_target(_target(panel, index))
    return builder


class _Annotation(AnnotationQuery):
    """With what Grafana's Prometheus takes beside, and the library lacks."""

    def __init__(self, mark: Mark) -> None:
        super().__init__(name=mark.name, datasource=SOURCE, icon_color=mark.color, expr=mark.query)
        self._more = {"titleFormat": mark.title, "useValueForTime": "on" if mark.by_value else "", "step": "60s"}

    def to_json(self) -> dict[str, object]:
        return super().to_json() | self._more


class _Mark(dashboard.AnnotationQuery):
    def __init__(self, mark: Mark) -> None:
        self._internal = _Annotation(mark)


def _runbook(title: str, section: str = "") -> dashboard.DashboardLink:
    url = f"{RUNBOOK}#{section}" if section else RUNBOOK
    return dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url).target_blank(target_blank=True)


def _variable(name: str, label: str, of: str, *, multi: bool = True) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": f"label_values({of}, {name if name != 'client' else 'client_id'})", "refId": "values"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(multi)
        .include_all(include_all=True)
        .all_value(".*")
        .current(VariableOption(text="All", value="$__all"))
    )


def build() -> str:
    """The dashboard as JSON."""
    board = (
        dashboard.Dashboard("notifier")
        .uid("notifier")
        .description("OpenID Connect Back-Channel Logout, delivered. Needs the recording rules of deploy/prometheus.")
        .tags(["notifier"])
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_variable("namespace", "Namespace", "notifier_build_info"))
        .with_variable(_variable("job", "Job", "notifier_build_info"))
        .with_variable(_variable("iss", "Issuer", "notifier_deliveries_settled_total"))
        .with_variable(_variable("client", "Client", 'notifier_deliveries_settled_total{iss=~"$iss"}'))
    )
    tooltip = "`notifier explain NAME` prints its section of an alert, a reason or a cause"
    board.link(_runbook("Runbook").icon("doc").tooltip(tooltip))
    for mark in MARKS:
        board.annotation(_Mark(mark))
    ids = count(1)
    for title, make in ROWS:
        board.with_row(dashboard.Row(title).id(next(ids)))
        for panel in make():
            board.with_panel(_build(panel).id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


if __name__ == "__main__":
    sys.stdout.write(build())
