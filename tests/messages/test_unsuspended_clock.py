"""The clock that stops while the process is suspended."""

from notifier.messages.worker import MAX_GAP_SECONDS, UnsuspendedClock


def test_clock_leaves_out_gaps_between_reads() -> None:
    """Six seconds without a reading count as the longest gap, and it goes on from there."""
    now = [100.0]
    awake = UnsuspendedClock(lambda: now[0])
    reported = []
    for at in (100.0, 100.05, 100.3, 106.3, 106.35):
        now[0] = at
        reported.append(round(awake() - 100, 6))
    assert reported == [0, 0.05, 0.3, 0.3 + MAX_GAP_SECONDS, 0.35 + MAX_GAP_SECONDS]
