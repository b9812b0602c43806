"""The clock that stands still while the process does."""

from notifier.pipeline.awake import LONGEST_TURN, Awake


def test_it_goes_as_long_as_it_is_read_and_leaves_out_what_is_longer_than_a_turn() -> None:
    """Six seconds without a reading are one turn, and it goes on from there."""
    now = [100.0]
    awake = Awake(lambda: now[0])
    told = []
    for at in (100.0, 100.05, 100.3, 106.3, 106.35):
        now[0] = at
        told.append(round(awake() - 100, 6))
    assert told == [0, 0.05, 0.3, 0.3 + LONGEST_TURN, 0.35 + LONGEST_TURN]
