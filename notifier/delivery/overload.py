"""Finds out whether a client is overloaded, and which pace it bears. Pure: the clock is an argument.

If more than a fifth of the attempts fails, the client is tried more slowly for up to two seconds.
If far fewer fail then, and many again at full pace, it is overloaded, and keeps the slow pace until it bears more. If
not, it is broken or was down for a moment, and has its full pace back.
"""

import math
from dataclasses import dataclass

SAMPLE = 24  # attempts that tell something …
FEW = SAMPLE // 3  # … or so many, if a pace is set or none fails
LONGEST_SAMPLE = 2.0  # … if they end within so many seconds
BELOW = 0.8  # a trial begins if a smaller share succeeds; its pace is that of the successes, times this
HELPED = (1 / 3, 0.75)  # a trial helped if the share of failures fell to this; to the second if the client is limited
WELL = 6  # attempts that succeed in a row, after which no trial begins: what was wrong is over
AGAIN = 30.0  # seconds from a trial that did not help to the next


@dataclass(slots=True)
class Overload:
    """Samples the attempts at one client. `spacing` is the seconds between two attempts that it bears; 0: no limit."""

    spacing: float = 0.0
    _since: float = 0.0  # when the present sample began
    _at_a_time: int = 1  # attempts at a time when it began
    _ended: int = 0
    _failed: int = 0
    _braked: int = 0
    _well: int = 0  # attempts that succeeded in a row
    _failed_at: float = -math.inf  # when one last failed
    _helped: float = 0.0  # the spacing that helped in a trial, while the full pace is tried once more
    _before: float | None = None  # the share of failures before the trial that is under way
    _known: bool = False  # a trial helped before, or the client says so by 429
    _next_trial: float = 0.0
    _adopted: bool = False  # the pace is another worker's, and not judged yet
    _lent: bool = False  # it was another worker's first: if a trial does not help, the full pace is back at once

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

    def _says_enough(self, seconds: float) -> bool:
        """Return True if the sample of so many seconds can be judged."""
        if self._helped and self._failed >= FEW:
            return True  # it does not bear its full pace
        if seconds < 1.0:
            return False
        if seconds >= LONGEST_SAMPLE or self._ended >= SAMPLE:
            return True
        trial, few = self._before is not None, self._ended < FEW
        return not (trial and few) if not self._failed else self.spacing > 0 and not trial and not few

    def steady(self, now: float) -> bool:
        """Return True if nothing has failed for long, and so no pace will change."""
        return not self.spacing and self._well >= SAMPLE and now - self._failed_at > AGAIN

    def adopt(self, spacing: float, now: float) -> None:
        """Take over the pace that another worker tries, if it helps here too. Else each would find out nothing.

        Where both keep one they meet half-way, so that in the end all have an equal share of what the client bears.
        """
        if self.spacing:
            self.spacing = 2 / (1 / self.spacing + 1 / spacing)
        elif not self._helped:
            self.spacing, self._adopted, self._lent = spacing, True, True
            self._begin(now)

    def forget(self, now: float) -> None:
        """Forget all: the client was down meanwhile."""
        self.spacing = self._helped = 0.0
        self._begin(now)

    def _judge(self, now: float, seconds: float) -> None:
        # In the rest of a sample that lasted for long, nobody wanted anything of the client.
        busy = min(seconds, max(LONGEST_SAMPLE, 2 * self.spacing * self._ended))
        share, good = self._failed / self._ended, (self._ended - self._failed) / busy
        few, limited = self._ended < SAMPLE, self.spacing > 0
        before, braked = self._before, 2 * self._braked > self._failed
        used = self.spacing * self._ended / seconds > 0.5
        helped, self._helped = self._helped, 0.0
        adopted, self._adopted = self._adopted, False
        self._begin(now)
        if adopted and share > 1 - BELOW:
            self.spacing = 0.0
        elif before is not None and share > before * HELPED[self._known]:
            if self._known and not self._lent:
                self._known = False  # perhaps another worker's doing: the pace stays, and the next trial decides
            else:
                self.spacing, self._next_trial = 0.0, now + AGAIN
        elif before is not None and not self._known:
            self._helped, self.spacing = self.spacing, 0.0
        elif helped:
            self.spacing = helped if share > 1 - BELOW else 0.0
        elif share > 1 - BELOW and good and (limited or not (few or self._well >= WELL or now < self._next_trial)):
            self._known, self._before, self.spacing = limited or braked, share, 1 / (BELOW * good)
        elif limited:
            self.spacing = self.spacing * BELOW if used or before is not None else 0.0

        self._lent = self._lent and self.spacing > 0

    def _begin(self, now: float) -> None:
        self._since, self._ended, self._failed, self._braked, self._before = now, 0, 0, 0, None
