"""Finds out whether a client is overloaded, and which pace it bears. Pure: the clock is an argument.

It judges one sample of attempts after another. *Too many* means that more than a fifth of a sample failed; at a pace
that helped, two fifths, since a client whose threads are all busy now and then refuses some at any pace that uses it.

| state | what the sample says | next state |
|---|---|---|
| free: no pace | too many, and of many attempts | trial, at the pace of those that succeeded |
| | too many, most of them by 429 | slower: the client says itself that it is overloaded |
| trial | a third of the former share at most | proving |
| | more: it is broken, or was down for a moment | free, without a trial for 30 s |
| proving: full pace once more | too many | paced: it is overloaded |
| | few | free |
| paced | too many | slower |
| | few, and the pace was used · was not needed | paced, a little quicker · free |
| slower: a slower pace is tried | three quarters of the former share at most | paced |
| | more | doubted, at the pace before; free if there was none |
| doubted: as paced | too many | trial; it helped if the share is three fifths at most, and the client is paced |
| lent: another worker's pace | of many attempts a tenth at most, or far fewer than before | paced, as its own |
| | more | free |

A client that was down for long is free. Where workers rest by turns, overload looks like an outage of some seconds.
After such an outage the state stays, and the sample begins anew.
"""

import math
from dataclasses import dataclass
from enum import Enum

SAMPLE = 24  # attempts that tell something …
FEW = SAMPLE // 3  # … or so many, if a pace is set or none fails
LONGEST_SAMPLE = 2.0  # seconds after which these few are enough
TOO_MANY, TOO_MANY_PACED = 0.2, 0.4  # of a sample fail; of one at a pace that helped
HELPED_HERE = 0.1  # of a sample fail at most, at a pace that helped another worker and helps here, too …
HELPED_MUCH = 0.55  # … or so much less of it than before: of a client that is broken, this is no luck
BELOW = 0.8  # times: a trial's pace is that of the successes before it, times this
QUICKER = 1.125  # times: where few fail, a pace becomes quicker by an eighth, or workers that share a client swing
HELPED, HELPED_PACED = 1 / 3, 0.6  # the share of failures falls to this by a trial that helped; if it was paced before
HELPED_MORE = 0.75  # … or, if a pace that is known becomes slower, to this
SLOWER = 2.0  # times: a pace becomes no slower at once
WELL = 6  # attempts that succeed in a row, after which no trial begins: what was wrong is over
AGAIN = 30.0  # seconds from a trial that did not help to the next


class Pacing(Enum):
    """The state of a pace: see the table above."""

    FREE = "free"
    TRIAL = "trial"
    PROVING = "proving"
    PACED = "paced"
    SLOWER = "slower"
    DOUBTED = "doubted"
    LENT = "lent"


PROVEN = frozenset({Pacing.PACED, Pacing.SLOWER, Pacing.DOUBTED})  # the states whose pace, or a quicker one, helped


@dataclass(slots=True)
class Overload:
    """Samples the attempts at one client. `spacing`: seconds between two attempts that it bears; 0: no limit."""

    spacing: float = 0.0
    state: Pacing = Pacing.FREE
    _since: float = 0.0  # when the present sample began
    _at_a_time: int = 1  # attempts at a time when it began
    _ended: int = 0
    _failed: int = 0
    _braked: int = 0
    _well: int = 0  # attempts that succeeded in a row
    _failed_at: float = -math.inf  # when one last failed
    _share: float = 0.0  # of failures, before the pace that is tried or lent
    _former: float = 0.0  # the spacing before the one that is tried; of `PROVING`, the one that helped
    _next_trial: float = 0.0

    def note(self, now: float, *, failed: bool, braked: bool, at_a_time: int) -> None:
        """Note an attempt that ended, at a client that may have so many `at_a_time`."""
        self._ended += 1
        self._failed += failed
        self._braked += braked
        self._well = 0 if failed else self._well + 1
        self._failed_at = now if failed else self._failed_at
        seconds = now - self._since
        if not self._says_enough(seconds):
            return
        if at_a_time > 2 * self._at_a_time:  # it has only begun: the sample says nothing of its full pace
            self._begin(now)
        else:
            self._judge(now, seconds)
        self._at_a_time = at_a_time

    @property
    def _tried(self) -> bool:
        return self.state in (Pacing.TRIAL, Pacing.SLOWER)

    def _says_enough(self, seconds: float) -> bool:
        """Return True if the sample of so many seconds can be judged."""
        if self.state is Pacing.PROVING and self._failed >= FEW and seconds > 0:
            return True  # it does not bear its full pace
        if seconds < 1.0 or (self.state is Pacing.LENT and self._ended < SAMPLE):
            return False
        if self._ended >= SAMPLE or (seconds >= LONGEST_SAMPLE and self._ended >= FEW):
            return True
        if not self._failed:
            return not (self._tried and self._ended < FEW)
        return self.spacing > 0 and not self._tried and self._ended >= FEW

    def steady(self, now: float) -> bool:
        """Return True if nothing has failed for long, and so no pace will change."""
        return not self.spacing and self._well >= SAMPLE and now - self._failed_at > AGAIN

    def adopt(self, spacing: float, now: float) -> None:
        """Take over the pace that another worker tries, if it helps here too. Else each would find out nothing.

        Where both keep one they meet half-way, so that in the end all have an equal share of what the client bears.
        """
        if self.spacing:
            self.spacing = 2 / (1 / self.spacing + 1 / spacing)
        elif self.state is not Pacing.PROVING:
            self._go(Pacing.LENT, spacing)
            self._begin(now)

    def forget(self, now: float, *, pace: bool) -> None:
        """Begin the sample anew: the client was down meanwhile. `pace`: for so long that its pace is not known now."""
        if pace:
            self._go(Pacing.FREE)
        self._begin(now)

    def _judge(self, now: float, seconds: float) -> None:
        # In the rest of a sample that lasted for long, nobody wanted anything of the client.
        busy = min(seconds, max(LONGEST_SAMPLE, 2 * self.spacing * self._ended))
        share, good = self._failed / self._ended, (self._ended - self._failed) / busy
        used = self.spacing * self._ended / seconds > 0.5
        braked, many = 2 * self._braked > self._failed, self._ended >= SAMPLE
        too_many = share > (TOO_MANY_PACED if self.state in PROVEN else TOO_MANY)
        self._begin(now)
        match self.state:
            case Pacing.FREE:
                self._share = share
                if too_many and good and many and self._well < WELL and now >= self._next_trial:
                    self._try(Pacing.SLOWER if braked else Pacing.TRIAL, share, good)
            case Pacing.TRIAL:
                self._end_trial(now, share)
            case Pacing.PROVING:
                self._go(Pacing.PACED if too_many else Pacing.FREE, self._former if too_many else 0.0)
            case Pacing.SLOWER if share > self._share * HELPED_MORE:
                self._doubt(now)
            case Pacing.LENT if share > max(HELPED_HERE, self._share - HELPED_MUCH):
                self._go(Pacing.FREE)
            case Pacing.DOUBTED if too_many and good:
                self._try(Pacing.TRIAL, share, good)
            case _ if too_many and good:
                self._try(Pacing.SLOWER, share, good)
            case state if used or state is Pacing.SLOWER:
                self._go(Pacing.DOUBTED if state is Pacing.DOUBTED else Pacing.PACED, self.spacing / QUICKER)
            case _:
                self._go(Pacing.FREE)

    def _try(self, state: Pacing, share: float, good: float) -> None:
        self._share, self._former = share, self.spacing
        spacing = 1 / (BELOW * good)
        self._go(state, min(spacing, SLOWER * self.spacing) if self.spacing else spacing)

    def _end_trial(self, now: float, share: float) -> None:
        if share > self._share * (HELPED_PACED if self._former else HELPED):
            self._next_trial = now + AGAIN
            self._go(Pacing.FREE)
        elif self._former:
            self._go(Pacing.PACED, self.spacing)
        else:
            self._former = self.spacing
            self._go(Pacing.PROVING)

    def _doubt(self, now: float) -> None:
        if self._former:
            self._go(Pacing.DOUBTED, self._former)
        else:
            self._next_trial = now + AGAIN
            self._go(Pacing.FREE)

    def _go(self, state: Pacing, spacing: float = 0.0) -> None:
        self.state, self.spacing = state, spacing

    def _begin(self, now: float) -> None:
        self._since, self._ended, self._failed, self._braked = now, 0, 0, 0
