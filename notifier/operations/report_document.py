"""Writes the report as JSON: durations in seconds, moments in RFC 3339."""

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
        "timeline": [
            {"at": render_moment(each.at), "delivered": each.delivered, "dead": each.dead, "retries": each.retries}
            for each in report.timeline
        ],
        "propagation": [
            {"least": _seconds(bar.least), "below": _seconds(bar.below), "count": bar.count}
            for bar in report.propagation
        ],
    }


def _line(line: ClientFigures) -> dict[str, Any]:
    return {
        "iss": line.iss,
        "client_id": line.client_id,
        "delivered": line.delivered,
        "dead": line.dead,
        "skipped": line.skipped,
        "retries": line.retries,
        "share": line.share,
        "median_seconds": _seconds(line.median),
        "p99_seconds": _seconds(line.p99),
        "slowest_seconds": _seconds(line.slowest),
        "undated": line.undated,
        "openings": line.openings,
        "failing": line.failing,
        "reasons": [{"reason": why.reason, "dead": why.dead, "retries": why.retries} for why in line.reasons],
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
