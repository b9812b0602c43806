"""The progress of a delivery: what its events change, apart from what tests of the worker cover."""

from notifier.model.outcome import Cause, Failed, Reason
from notifier.model.progress import NO_PROGRESS, Progress
from notifier.model.record import copy_record

NOW = 1_800_000_000.0
REQUESTED = Failed(reason=Reason.SERVER_ERROR, status=503, retry_after=60.0, ambiguous=True)


def test_a_replay_keeps_the_history_and_its_ambiguity_only() -> None:
    """Its client may have accepted the last token (R3). All else starts anew, also a requested delay."""
    progress = NO_PROGRESS.after_attempt(REQUESTED, NOW, 0.5)
    progress = progress.after_deferral(Cause.UNKNOWN, NOW, uncounted_seconds=8.0, probe_due=NOW + 8, slot_at=NOW + 8)
    progress = copy_record(progress.after_dispatch(NOW, 8.0, parked=True), delayed_by_client=True)
    assert progress.after_replay() == Progress(ambiguous=True, history=progress.history)


def test_an_attempt_ends_the_wait() -> None:
    """The next verdict decides how the delivery waits from then on."""
    waiting = Progress(probe_due=NOW, slot_at=NOW, parked=True, deferrals=2, deferred_for=Cause.SLOT, unknown_since=NOW)
    after = waiting.after_attempt(REQUESTED, NOW, 0.5)
    assert (after.probe_due, after.slot_at, after.parked, after.deferrals, after.unknown_since) == (
        None,
        None,
        False,
        0,
        None,
    )
    assert (after.stage, after.delayed_by_client) == ((1, 0, None), True)
