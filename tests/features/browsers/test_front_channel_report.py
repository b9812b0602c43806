"""A report of a page: what is one, and what it counts for."""

import json

import pytest

from notifier.features.browsers.front_channel_report import (
    LARGEST_REPORT,
    REACH,
    BrowserReach,
    PageEnd,
    PageReport,
    PageResult,
    read_report,
)

GOOD = {"how": "limit", "ms": 5000, "clients": ["answered", "silent"]}


def test_a_report_has_one_word_for_each_client() -> None:
    """In the order of the plan. What else it says is nobody's business."""
    report = read_report(json.dumps(GOOD).encode(), 2)
    assert report == PageReport(end=PageEnd.LIMIT, results=(PageResult.ANSWERED, PageResult.SILENT))
    assert read_report(b'{"how": "done", "clients": []}', 0) == PageReport(end=PageEnd.DONE, results=())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"7",
        b"[" * 5000,
        b"\xff",
        json.dumps({**GOOD, "how": "well"}).encode(),
        json.dumps({**GOOD, "clients": ["answered"]}).encode(),
        json.dumps({**GOOD, "clients": ["answered"] * 3}).encode(),
        json.dumps({**GOOD, "clients": ["answered", "logged-out"]}).encode(),
        json.dumps({**GOOD, "clients": ["answered", []]}).encode(),
        json.dumps({**GOOD, "clients": 2}).encode(),
        json.dumps({"how": "limit"}).encode(),
        json.dumps({**GOOD, "pad": "x" * LARGEST_REPORT}).encode(),
    ],
    ids=range(13),
)
def test_what_is_no_report_is_refused(body: bytes) -> None:
    """Whoever has a page's address can send anything."""
    assert read_report(body, 2) is None


def test_only_an_answer_counts_as_reached() -> None:
    """Each result counts for one thing, and a largest page's report is within the limit."""
    assert set(REACH) == set(PageResult)
    assert {result for result, reach in REACH.items() if reach is BrowserReach.REACHED} == {"confirmed", "answered"}
    largest = {"how": "limit", "ms": 30_000, "clients": ["confirmed"] * 600}
    assert read_report(json.dumps(largest, separators=(",", ":")).encode(), 600) is not None
