"""Writes the report as JSON: durations in seconds, moments in RFC 3339."""

from dataclasses import asdict
from typing import Any

from notifier.domain.moment import render_moment
from notifier.operations.report import ERROR, ClientFigures, PropagationReport

VERSION = 1


def report_document(report: PropagationReport) -> dict[str, Any]:
    """Return what `--json` prints."""
    total = _line(report.total)
    del total["iss"], total["client_id"]
    return {
        "v": VERSION,
        "since": render_moment(report.since),
        "until": render_moment(report.until),
        "complete": report.complete,
        "quantile_error": round(ERROR, 3),
        "total": total,
        "clients": [_line(line) for line in report.clients],
        "timeline": [asdict(each) | {"at": render_moment(each.at)} for each in report.timeline],
        "propagation": [
            {"least": _seconds(bar.least), "below": _seconds(bar.below), "count": bar.count}
            for bar in report.propagation
        ],
    }


def _line(line: ClientFigures) -> dict[str, Any]:
    shown = asdict(line)
    times = {f"{name}_seconds": _seconds(shown.pop(name)) for name in ("median", "p99", "slowest")}
    return shown | times | {"reasons": list(shown["reasons"])}


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
