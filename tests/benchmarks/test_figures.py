"""What the benchmarks make of arrivals is right: percentiles, spreads, accounts, rates."""

import json
import math

from tests.benchmarks import figures
from tests.benchmarks.deferrals import bars
from tests.benchmarks.processes import Arrival
from tests.benchmarks.rig import Event, plain


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed() -> None:
    """Nearest rank, of any order."""
    values = [float(number) for number in range(100, 0, -1)]
    assert [figures.percentile(values, share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert figures.percentile([7.0], 0.99) == 7
    assert math.isnan(figures.percentile([], 0.5))


def test_ratios_are_taken_pair_by_pair() -> None:
    """And their spread is least, middle and greatest."""
    assert figures.ratios([(1, 3), (2, 2), (4, 2)]) == figures.Spread(min=0.5, median=1.0, max=3.0)
    assert figures.ratios([(1, 1), (1, 2)]).median == 1.5


def test_the_account_tells_missing_duplicated_and_strange_deliveries() -> None:
    """Only what was answered has arrived, only the chosen clients are accounted for, and the first arrival counts."""
    events = [Event(0, (0, 1)), Event(1, (1, 2)), Event(2, (1,))]
    arrivals = [
        Arrival(0, 1, 12.0, answered=True),
        Arrival(0, 1, 11.0, answered=True),
        Arrival(1, 1, 13.0, answered=False),
        Arrival(1, 2, 14.0, answered=True),
        Arrival(2, 2, 15.0, answered=True),
        Arrival(0, 0, 16.0, answered=True),
    ]
    found = figures.ledger(events, {1, 2}, arrivals)
    assert found.account == figures.Account(expected=4, arrived=2, duplicated=1, missing=2, strange=1)
    assert not found.account.complete
    assert sorted(found.latencies({0: 10.0})) == [1.0]


def test_arrivals_are_counted_by_the_second_after_a_moment() -> None:
    """Seconds without any are zeros; what came before does not count."""
    assert figures.per_second([4.0, 5.0, 5.9, 8.1], start=5.0) == [2, 0, 0, 1]
    assert figures.per_second([], start=5.0) == []


def test_a_rate_over_time_fits_into_a_line() -> None:
    """However long it took."""
    assert bars([0, 4, 8]).endswith("|" + " ▄█" + "|")
    assert bars([1] * 250, width=100).endswith("|" + "█" * 84 + "|")
    assert bars([]).endswith("||")


def test_every_figure_can_be_written_as_json() -> None:
    """NaN is null there."""
    record = {"of": figures.spread([math.nan]), "sets": frozenset({1}), "pairs": [(1, 2)]}
    assert (
        json.dumps(plain(record))
        == '{"of": {"min": null, "median": null, "max": null}, "sets": [1], "pairs": [[1, 2]]}'
    )
