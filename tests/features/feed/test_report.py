"""The propagation report: counts by client, quantiles of bounded error and memory, the worst first."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.features.feed.report import ERROR, LEAST, SLICES, ClientFigures, Durations, PropagationReport, ReportTally
from notifier.model.fate import FeedRow

ISS = "https://id.example.com"
SINCE, UNTIL = 1_800_000_000.0, 1_800_004_800.0


def seen(
    fate: str, client_id: str = "shop", *, reason: str = "", at: float = SINCE + 1, took: float | None = None
) -> FeedRow:
    return FeedRow(at=at, fate=fate, reason=reason or fate, iss=ISS, client_id=client_id, propagation=took)


def report(*rows: FeedRow, complete: bool | None = True) -> PropagationReport:
    tally = ReportTally(SINCE, UNTIL, complete=complete)
    for one in rows:
        tally.add(one)
    return tally.report()


def line(*rows: FeedRow, complete: bool | None = True) -> ClientFigures:
    (only,) = report(*rows, complete=complete).clients
    return only


@given(
    values=st.lists(st.floats(LEAST, 1e7), min_size=1, max_size=200),
    share=st.floats(0.001, 1.0),
)
def test_a_quantile_is_within_its_error(values: list[float], share: float) -> None:
    """Of the value of that rank, whatever the durations are."""
    durations = Durations()
    for value in values:
        durations.add(value)
    true = sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]
    found = durations.quantile(share)
    assert found is not None
    assert found == pytest.approx(true, rel=ERROR * 1.001)
    assert found <= durations.slowest == max(values)


def test_the_share_is_of_what_came_to_an_end() -> None:
    """A retry is no end, and a client that is skipped need not be told."""
    found = line(
        *(seen("delivered", took=0.1) for _ in range(9)),
        seen("dead", reason="refused"),
        *(seen("retrying", reason="timeout") for _ in range(5)),
        seen("skipped", reason="no_uri"),
    )
    assert (found.delivered, found.dead, found.retries, found.skipped) == (9, 1, 5, 1)
    assert found.share == 0.9
    assert line(seen("retrying", reason="timeout")).share is None


def test_what_was_given_up_for_it_is_the_worst_reason() -> None:
    """Then the one that cost most attempts."""
    found = line(
        *(seen("retrying", reason="timeout") for _ in range(5)),
        *(seen("retrying", reason="connect") for _ in range(7)),
        seen("dead", reason="expired"),
    )
    assert [(why.reason, why.dead, why.retries) for why in found.reasons] == [
        ("expired", 1, 0),
        ("connect", 0, 7),
        ("timeout", 0, 5),
    ]


def test_who_fails_is_who_failed_last() -> None:
    """As status has it: whatever the order of the rows, a delivery or a recovery ends it; a dead letter begins it."""
    rejected = line(seen("delivered", at=SINCE + 1, took=0.1), seen("dead", reason="rejected_token", at=SINCE + 2))
    assert (rejected.failing, rejected.got_nothing) == (True, False)
    well = line(seen("delivered", at=SINCE + 3, took=0.1), seen("retrying", reason="timeout", at=SINCE + 2))
    assert not well.failing
    back = line(seen("failing", at=SINCE + 1), seen("recovered", at=SINCE + 2), seen("dead", at=SINCE + 1))
    assert (back.failing, back.got_nothing) == (False, True)
    assert not line(seen("skipped", reason="no_uri")).got_nothing


def test_clients_of_the_registry_of_which_nothing_is_told() -> None:
    """They are named: for them nothing was due, or all of it waits."""
    tally = ReportTally(SINCE, UNTIL, complete=True)
    tally.add(seen("delivered", took=0.1))
    assert tally.report([(ISS, "shop"), (ISS, "paused")]).untold == ((ISS, "paused"),)


def test_undated_deliveries_count_without_a_time() -> None:
    """They were delivered, but nobody knows when the session ended."""
    found = line(seen("delivered"), seen("delivered", took=2.0))
    assert (found.delivered, found.undated) == (2, 1)
    assert found.median == pytest.approx(2.0, rel=ERROR)


def test_the_time_line_covers_the_period() -> None:
    """In bins of one length; what lies outside is left out."""
    found = report(
        seen("delivered", at=SINCE, took=1.0),
        seen("delivered", at=UNTIL, took=1.0),
        seen("dead", at=SINCE + 150, reason="refused"),
        seen("delivered", at=SINCE - 1, took=1.0),
        seen("delivered", at=UNTIL + 1, took=1.0),
    )
    assert len(found.timeline) == SLICES
    assert (found.timeline[0].delivered, found.timeline[1].dead, found.timeline[-1].delivered) == (1, 1, 1)
    assert found.total.delivered == 2
