"""The propagation report: counts by client, quantiles of bounded error and memory, the worst first."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.feed_event import FeedRow
from notifier.operations.report import (
    ERROR,
    LEAST,
    SLICES,
    ClientFigures,
    Durations,
    PropagationReport,
    ReportTally,
    report_document,
)

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


def test_its_memory_does_not_grow_with_what_it_counts() -> None:
    """From a tenth of a millisecond to a week there are 262 buckets."""
    durations = Durations()
    draw = random.Random(1)
    for _ in range(50_000):
        durations.add(10 ** draw.uniform(-6, math.log10(7 * 86_400)))
    assert len(durations._counts) <= 263
    assert sum(bar.count for bar in durations.bars()) == 50_000


def test_no_duration_has_no_quantile() -> None:
    """Not zero."""
    assert Durations().quantile(0.5) is None
    assert Durations().bars() == ()


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


def test_the_worst_client_comes_first() -> None:
    """The smallest share, then the slowest; one that fails, and has no share yet, among those that get nothing."""
    found = report(
        seen("delivered", "quick", took=0.01),
        seen("delivered", "slow", took=30.0),
        seen("delivered", "half", took=0.01),
        seen("dead", "half", reason="refused"),
        seen("dead", "none", reason="refused"),
        seen("retrying", "down", reason="connect"),
        seen("failing", "down"),
    )
    assert [one.client_id for one in found.clients] == ["none", "down", "half", "slow", "quick"]
    assert found.total.share == 0.6


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


def test_failures_alone_tell_no_share() -> None:
    """What went well was not told, so 0 % would be a lie."""
    found = line(seen("dead", reason="refused"), complete=False)
    assert (found.delivered, found.share, found.dead) == (None, None, 1)
    assert line(seen("dead", reason="refused"), complete=None).share is None
    assert line(seen("dead", reason="refused"), seen("delivered"), complete=None).share == 0.5


def test_a_client_that_fails_is_marked_until_it_recovers() -> None:
    """With how often its circuit opened."""
    found = line(seen("failing"), seen("recovered"), seen("failing"))
    assert (found.openings, found.failing) == (2, True)
    assert not line(seen("failing"), seen("recovered")).failing


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


def test_the_document_for_scripts() -> None:
    """Durations in seconds, moments in RFC 3339, and the error of a quantile."""
    found = report_document(report(seen("delivered", took=0.25), seen("dead", reason="refused")))
    assert (found["since"], found["until"]) == ("2027-01-15T08:00:00.000000Z", "2027-01-15T09:20:00.000000Z")
    assert found["quantile_error"] == 0.044
    assert found["total"]["share"] == 0.5
    (client,) = found["clients"]
    assert client["client_id"] == "shop"
    assert client["median_seconds"] == pytest.approx(0.25, rel=ERROR)
    assert client["slowest_seconds"] == 0.25
    assert client["reasons"] == [{"reason": "refused", "dead": 1, "retries": 0}]
