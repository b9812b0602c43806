"""Records how far a delivery has come: its history, and how it waits. Any worker continues from it.

Each event has a method, which returns the progress afterwards. Otherwise only the parser of a message sets members:

| event | method |
|---|---|
| a worker reads the delivery from a queue | `with_delayed_until`, `after_receipt` |
| a worker takes it, and its age begins | `after_take` |
| an attempt is refused or fails | `after_attempt` |
| the failure does not lengthen the backoff | `without_longer_backoff` |
| the failure turns out to be part of an outage | `after_outage` |
| it is deferred without an attempt | `after_deferral` |
| the queue is unavailable until the deferral is due | `after_lost_deferral` |
| it is written to a queue | `after_dispatch` |
| it becomes a dead letter | `after_death` |
| an operator replays the dead letter | `after_replay` |

Times are seconds since the epoch. Messages contain the members by name, and workers of other versions read them.
"""

from typing import Annotated

from pydantic import Field

from notifier.model.backoff import MAX_LATE_FACTOR, MIN_EARLY_FACTOR
from notifier.model.json_size import MAX_CHARACTER_BYTES, cut, size
from notifier.model.outcome import Cause, Failed, Reason, Refused
from notifier.model.record import copy_record, record

MAX_HISTORY_LENGTH = 10
MAX_HISTORY_BYTES = 2048  # bytes of response texts in the whole history, as written in JSON
MAX_ANSWER_BYTES = 1024
MAX_CLOCK_DIFFERENCE_SECONDS = 60.0  # seconds by which the clocks of two workers may differ

StoredCount = Annotated[int, Field(ge=0, lt=2**31)]


@record
class PastOutcome:
    """One earlier outcome. `text` is the printable beginning of the response or error."""

    at: float
    reason: str
    status: int | None = None
    text: str = ""


@record
class RecordedWaits:
    """The time that a delivery provably spent: `seconds` of waits and attempts. It is a lower bound of the age.

    `since` and `longest` are the beginning and the longest length of a wait that has not ended yet. `undated`: the
    clock was set back during a wait of unknown length, so the age is unknown.
    """

    seconds: float = 0.0
    since: float | None = None
    longest: float = 0.0
    undated: bool = False

    def end_wait(self, now: float, *, parked: bool) -> "RecordedWaits":
        """Return the record with the wait added, limited to the longest time for which a queue keeps a message.

        If the clock was set back meanwhile, the minimum of the planned wait is added; a parked delivery has none.
        """
        if self.since is None:
            return self
        elapsed_seconds = now - self.since
        if elapsed_seconds >= 0:
            waited_seconds = min(elapsed_seconds, self.longest * MAX_LATE_FACTOR)
        else:
            waited_seconds = 0.0 if parked else self.longest * MIN_EARLY_FACTOR
        undated = self.undated or (parked and elapsed_seconds < -MAX_CLOCK_DIFFERENCE_SECONDS)
        return RecordedWaits(seconds=self.seconds + waited_seconds, undated=undated)


NO_WAITS = RecordedWaits()


@record
class Progress:
    """The history of a delivery, and how it waits.

    History: `rejections` counts 400s (R3, R12). `ambiguous`: the client may have accepted the last token.
    `ended_early`: the worker ended the last attempt before its timeout, since other clients needed its slot.
    `first_taken_at`: when a worker first took the delivery, where its age begins; stored by its first deferral or
    retry. `first_attempt_at`: when its first attempt began. `uncounted_seconds`: since `first_taken_at`, which do not
    count as age. `waits`: a lower bound of the age, in case clocks are wrong. `waited_for`: all causes of its
    deferrals, as text, since a later release may add causes. `deferrals`: in a row, for the cause `deferred_for`.
    `unknown_since`: when this row began, if its cause is `Cause.UNKNOWN`. `backoffs`: the number of failures that
    lengthen the backoff; `charged_at`: the time of the last of these. `history`: the last outcomes.

    How it waits: `probe_due`: set only for the probe of a client: when it returns for the next attempt. `slot_at`: when
    the client has a slot for the delivery, if it is deferred and the circuit is closed. `parked`: its last wait was in
    the client's bucket. `delayed_by_client`: it waits because the client requested that (`Retry-After`), until
    `delayed_until`, which is not stored.
    """

    attempts: StoredCount = 0
    rejections: StoredCount = 0
    ambiguous: bool = False
    ended_early: bool = False
    first_taken_at: float | None = None
    first_attempt_at: float | None = None
    uncounted_seconds: float = 0.0
    waits: RecordedWaits = NO_WAITS
    waited_for: tuple[str, ...] = ()
    deferrals: StoredCount = 0
    deferred_for: str | None = None
    probe_due: float | None = None
    slot_at: float | None = None
    backoffs: StoredCount = 0
    charged_at: float | None = None
    parked: bool = False
    delayed_by_client: bool = False
    delayed_until: Annotated[float | None, Field(exclude=True)] = None
    unknown_since: float | None = None
    history: tuple[PastOutcome, ...] = ()

    @property
    def stage(self) -> tuple[int, int, str | None]:
        """The stage, which each retry and each deferral changes."""
        return (self.attempts, self.deferrals, self.deferred_for)

    def age_began_at(self, now: float) -> float:
        """Return when the age began: by the wall clock, or earlier if the recorded waits are longer than its age."""
        return now if self.first_taken_at is None else min(self.first_taken_at, now - self.waits.seconds)

    def with_delayed_until(self, due: float | None) -> "Progress":
        """Return the progress with the end of the delay that its client requested, which only the message states."""
        return copy_record(self, delayed_until=due)

    def after_receipt(self, now: float) -> "Progress":
        """Return the progress with the wait in the queue recorded. A `charged_at` in the future is dropped.

        The rest of a requested delay is at most its length less the wait, since the worker that recorded its end may
        have another clock.
        """
        is_future = self.charged_at is not None and self.charged_at > now  # the clock was set back
        waits, delayed_until = self.waits.end_wait(now, parked=self.parked), self.delayed_until
        if delayed_until is not None and self.waits.since is not None:
            rest_seconds = delayed_until - self.waits.since - (waits.seconds - self.waits.seconds)
            delayed_until = min(delayed_until, now + rest_seconds)
        return copy_record(
            self, waits=waits, charged_at=None if is_future else self.charged_at, delayed_until=delayed_until
        )

    def after_take(self, now: float) -> "Progress":
        """Return the progress of a delivery whose age begins now, if it had none."""
        return self if self.first_taken_at is not None else copy_record(self, first_taken_at=now)

    def after_attempt(self, outcome: Refused | Failed, began_at: float, seconds: float) -> "Progress":
        """Return the progress after an attempt that took so many seconds, as if it lengthens the backoff.

        A 400 does not count as a rejection if the attempt before was ambiguous (R3).
        """
        is_rejection = outcome.reason is Reason.REJECTED_TOKEN and not self.ambiguous
        past = PastOutcome(at=began_at, reason=str(outcome.reason), status=outcome.status, text=outcome.text)
        failed = outcome if isinstance(outcome, Failed) else None
        return Progress(
            attempts=self.attempts + 1,
            rejections=self.rejections + is_rejection,
            ambiguous=failed is not None and failed.ambiguous,
            ended_early=failed is not None and failed.ended_early,
            first_taken_at=began_at if self.first_taken_at is None else self.first_taken_at,
            first_attempt_at=began_at if self.first_attempt_at is None else self.first_attempt_at,
            uncounted_seconds=self.uncounted_seconds,
            waits=RecordedWaits(seconds=self.waits.seconds + seconds, undated=self.waits.undated),
            waited_for=self.waited_for,
            backoffs=self.backoffs + 1,
            charged_at=began_at,
            delayed_by_client=failed is not None and failed.retry_after is not None,
            history=shorten_history((*self.history, past)[-MAX_HISTORY_LENGTH:], MAX_HISTORY_BYTES),
        )

    def without_longer_backoff(
        self, before: "Progress", *, probe_due: float | None = None, slot_at: float | None = None
    ) -> "Progress":
        """Return the progress after a failed attempt that leaves the backoff as `before` the attempt.

        `probe_due` and `slot_at`: how the delivery waits for its client.
        """
        return copy_record(
            self, backoffs=before.backoffs, charged_at=before.charged_at, probe_due=probe_due, slot_at=slot_at
        )

    def after_outage(self) -> "Progress":
        """Return the progress without the last failure that lengthened the backoff."""
        return copy_record(self, backoffs=max(0, self.backoffs - 1), charged_at=None)

    def after_deferral(
        self, cause: Cause, now: float, *, uncounted_seconds: float, probe_due: float | None, slot_at: float | None
    ) -> "Progress":
        """Return the progress after a deferral for this cause. `uncounted_seconds`: of all deferrals so far."""
        return copy_record(
            self,
            first_taken_at=now if self.first_taken_at is None else self.first_taken_at,
            uncounted_seconds=uncounted_seconds,
            waited_for=self.waited_for if cause in self.waited_for else (*self.waited_for, cause),
            deferrals=self.deferrals + 1 if self.deferred_for in (None, cause) else 1,
            deferred_for=cause,
            probe_due=probe_due,
            slot_at=slot_at,
            delayed_by_client=cause is Cause.RETRY_AFTER,
            unknown_since=(self.unknown_since or now) if cause is Cause.UNKNOWN else None,
        )

    def after_lost_deferral(self, deferred: "Progress", seconds: float) -> "Progress":
        """Return the progress after a deferral that the queue did not take within so many seconds.

        The age, the causes and the slot are those of the deferral, all else is as before it.
        """
        return copy_record(
            self,
            first_taken_at=deferred.first_taken_at,
            uncounted_seconds=deferred.uncounted_seconds,
            waits=copy_record(deferred.waits, seconds=deferred.waits.seconds + seconds),
            waited_for=deferred.waited_for,
            slot_at=deferred.slot_at,
        )

    def after_dispatch(self, now: float, longest: float, *, parked: bool) -> "Progress":
        """Return the progress of a delivery that waits in a queue from now, for at most `longest` seconds."""
        waits = RecordedWaits(seconds=self.waits.seconds, since=now, longest=longest, undated=self.waits.undated)
        return copy_record(self, parked=parked, waits=waits)

    def after_death(self, max_history_bytes: int) -> "Progress":
        """Return the progress for a dead letter, which is not parked, with so many bytes of text in its history."""
        return copy_record(self, parked=False, history=shorten_history(self.history, max_history_bytes))

    def after_replay(self) -> "Progress":
        """Return the progress of a delivery that starts again: only `history` and `ambiguous` remain.

        Its client may have accepted the last token, and answer 400 to the next (R3).
        """
        return copy_record(NO_PROGRESS, ambiguous=self.ambiguous, history=self.history)


NO_PROGRESS = Progress()


def shorten_history(history: tuple[PastOutcome, ...], max_bytes: int) -> tuple[PastOutcome, ...]:
    """Return the history with at most `max_bytes` of text in JSON. The newest texts are kept, older ones are cut.

    Each text has at most MAX_ANSWER_BYTES.
    """
    longest = 0
    for past in history:  # faster than a generator
        longest += MAX_CHARACTER_BYTES * len(past.text)
    if longest <= min(max_bytes, MAX_ANSWER_BYTES):  # the usual case
        return history
    newest_first: list[PastOutcome] = []
    bytes_left = max_bytes
    for past in reversed(history):
        text = cut(past.text, min(bytes_left, MAX_ANSWER_BYTES))
        bytes_left -= size(text)
        newest_first.append(past if text == past.text else copy_record(past, text=text))
    return tuple(reversed(newest_first))
