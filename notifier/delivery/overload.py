"""Finds out whether a client is overloaded, and keeps the pace that it bears. Pure: the clock is an argument.

A client that is overloaded refuses what is too much for it: of fewer attempts a smaller share fails. One that is broken
fails as often at any pace. What this worker sees at its own pace tells which of the two a client is. It judges one
sample of attempts after another. *Too many* means that more than a fifth of a sample failed.

| state | what the sample says | next state |
|---|---|---|
| free: no pace | too many, and of many attempts | trial, at 0.8 of the pace of those that succeeded |
| | too many, most of them by 429 | paced: the client says itself that it is overloaded |
| | another worker begins a trial · keeps a pace | lent · paced |
| trial | a third of the former share at most | proving |
| | more: it is broken, or was down for a moment | free, without a trial for 30 s |
| proving: full pace once more | too many | paced: it is overloaded |
| | few | free |
| paced | nothing has failed for 30 s, or its pace is a thousand a second | free |
| | its pace has fallen to a quarter: what was found is old | free |
| | in the mean three quarters of the former share: it is broken | free, without a trial for 30 s |
| | anything else | paced, at 1.43 times the pace of those that succeeded |
| lent: another worker has a trial | that worker says that it helped | paced |
| | it says nothing more for ten seconds | free, without a trial for 30 s |

A pace changes by steps: at most to a half, or by an eighth. It comes to rest where 30 % of its attempts fail, with one
worker as with several: a client whose threads are all busy now and then refuses some at any pace that uses it.

Workers that share a client have one trial at a time, and the one that began it judges. The others keep the pace of
their own successes meanwhile. Paces that are kept come nearer to each other with each word that workers hear of them,
since deliveries come to all of them alike. A worker at which all goes well listens to none of this.

A client that was down for long is free. Where workers rest by turns, overload looks like an outage of some seconds.
After such an outage the state stays, and the sample begins anew.
"""

import math
from dataclasses import dataclass
from enum import Enum

SAMPLE = 24  # attempts that tell something …
FEW = SAMPLE // 3  # … or so many, after some seconds, or of a pace that is kept
MANY = 4 * SAMPLE  # … and so many tell it in half a second
SHORTEST_SAMPLE = 0.5  # seconds, at a client without a pace
LONGEST_SAMPLE, LONGEST_TRIAL = 2.0, 4.0  # seconds after which few are enough
TOO_MANY = 0.2  # of a sample fail
UNDER_WAY = 0.25  # seconds from the beginning of a trial: what fails before began before, here or at another worker
BELOW = 0.8  # times: a trial's pace is that of the successes before it, times this
HELPED = 1 / 3  # the share of failures falls to this by a trial that helped …
HELPS = 0.75  # … and stays below this while a pace helps
HALF = 0.5  # of the attempts at least fail at full pace: then few that succeed in a row say that a trial helped
ABOVE = 1.43  # times: a kept pace is that of the successes, times this
OLD = 4.0  # times: a pace that is kept becomes no slower than this, beside that at which it began to be kept
SLOWER, QUICKER = 1 / 2, 9 / 8  # times: it changes by no more at once, or workers that share a client swing
NEARER = 0.15  # of the way to another worker's pace, each time this one hears of it
NEWEST = 0.25  # the weight of a full sample in the share of failures at a pace
WELL = 6  # attempts that succeed in a row, after which no trial begins: what was wrong is over
AGAIN = 30.0  # seconds from a trial that did not help to the next
LENT = 10.0  # seconds that another worker's trial takes at most
SLOWEST_LENT, MOST_LENT = 1.0, 16  # seconds between two attempts meanwhile, at most, and times those of the other one
NO_PACE = 1e-3  # seconds between two attempts, below which a pace is none


class Pacing(Enum):
    """The state of a pace: see the table above."""

    FREE = "free"
    TRIAL = "trial"
    PROVING = "proving"
    PACED = "paced"
    LENT = "lent"


@dataclass(slots=True)
class Overload:
    """Samples the attempts at one client. `spacing`: seconds between two attempts that it bears; 0: no limit."""

    spacing: float = 0.0
    state: Pacing = Pacing.FREE
    _since: float = 0.0  # when the present sample begins: no failure counts before
    _at_a_time: int = 1  # attempts at a time when it began
    _ended: int = 0
    _failed: int = 0
    _braked: int = 0
    _well: int = 0  # attempts that succeeded in a row
    _failed_at: float = -math.inf  # when one last failed, or its pace began to be kept
    _share: float = 0.0  # of failures, at full pace
    _share_paced: float = 0.0  # … at the pace that is kept
    _found: float = 0.0  # the spacing of the trial that is being proved, or with which its pace began to be kept
    _next_trial: float = 0.0

    def note(self, now: float, *, failed: bool, braked: bool, at_a_time: int) -> None:
        """Note an attempt that ended, at a client that may have so many `at_a_time`."""
        seconds = now - self._since
        if failed:
            self._well, self._failed_at = 0, now
            if seconds < 0:
                return
            self._failed += 1
            self._braked += braked
        else:
            self._well += 1
        self._ended += 1
        if (self.state is Pacing.FREE and seconds < SHORTEST_SAMPLE) or not self._says_enough(seconds):
            return
        if not self.spacing and at_a_time > 2 * self._at_a_time:
            self._begin(now)  # it has only begun: the sample says nothing of its full pace
        else:
            self._judge(now, seconds)
        self._at_a_time = at_a_time

    def _says_enough(self, seconds: float) -> bool:
        """Return True if the sample of so many seconds can be judged."""
        ended, failed = self._ended, self._failed
        if self.state is Pacing.LENT:
            return seconds >= LENT
        if seconds <= 0:
            return False
        if self.state is Pacing.PROVING and failed >= FEW:
            return True  # it does not bear its full pace
        if self.state is Pacing.TRIAL and not failed and ended >= FEW and self._share > HALF:
            return True  # no luck
        if seconds < (SHORTEST_SAMPLE if ended >= MANY else 1.0):
            return False
        if self.state is Pacing.TRIAL:  # of a client that is broken, a short one looks like help now and then
            few_are_enough = seconds >= LONGEST_TRIAL and (ended >= FEW or failed > 0)
            return few_are_enough or ended >= (SAMPLE if failed else 2 * FEW)
        few_are_enough = seconds >= LONGEST_SAMPLE or self.state is Pacing.PACED
        return not failed or ended >= (FEW if few_are_enough else SAMPLE)

    def steady(self, now: float) -> bool:
        """Return True if nothing has failed for long, and so no pace will change."""
        return not self.spacing and self._well >= SAMPLE and now - self._failed_at > AGAIN

    @property
    def former_share(self) -> float:
        """The share of failures before it kept its pace; 0 while none has helped."""
        return self._share if self.state is Pacing.PACED else 0.0

    def adopt(self, spacing: float, former_share: float, now: float) -> None:
        """Hear of the pace that another worker tries, or keeps since it helped: then `former_share` is not 0."""
        if spacing < NO_PACE or self._well >= SAMPLE:
            return
        match self.state:
            case Pacing.FREE:
                good = (self._ended - self._failed) / max(0.5, now - self._since)
                own = 1 / (BELOW * good) if good else math.inf
                lent = min(own, MOST_LENT * spacing, max(SLOWEST_LENT, spacing))
                self._go(Pacing.LENT, lent)
            case Pacing.PACED if former_share:
                self.spacing = 1 / ((1 - NEARER) / self.spacing + NEARER / spacing)
        if self.state is Pacing.LENT:
            if former_share:
                self._keep(now, self.spacing, former_share)
            self._begin(now)

    def forget(self, now: float, *, pace: bool) -> None:
        """Begin the sample anew: the client was down meanwhile. `pace`: for so long that its pace is not known now."""
        if pace:
            self._go(Pacing.FREE)
        self._begin(now)

    def _judge(self, now: float, seconds: float) -> None:
        share = self._failed / self._ended
        too_many, many, braked = share > TOO_MANY, self._ended >= SAMPLE, 2 * self._braked > self._failed
        # In the rest of a sample that lasted for long, nobody wanted anything of the client.
        good = (self._ended - self._failed) / min(seconds, LONGEST_SAMPLE)
        weight = NEWEST * min(1.0, self._ended / SAMPLE)
        self._begin(now)
        match self.state:
            case Pacing.FREE:
                self._share = (share + self._share) / 2 if self._share > TOO_MANY else share
                if too_many and many and good and self._well < WELL and now >= self._next_trial:
                    if braked:
                        self._keep(now, 1 / good, self._share)
                    else:
                        self._go(Pacing.TRIAL, 1 / (BELOW * good))
                        self._since = now + UNDER_WAY
            case Pacing.TRIAL if share <= HELPED * self._share:
                self._found = self.spacing
                self._go(Pacing.PROVING)
            case Pacing.TRIAL | Pacing.LENT:
                self._give_up(now)
            case Pacing.PROVING if too_many:
                self._keep(now, self._found, self._share)
            case Pacing.PROVING:
                self._go(Pacing.FREE)
            case Pacing.PACED:
                self._share_paced += weight * (share - self._share_paced)
                if self._share_paced > HELPS * self._share:
                    self._give_up(now)
                elif now - self._failed_at > AGAIN or not NO_PACE < self.spacing < OLD * self._found:
                    self._go(Pacing.FREE)
                else:
                    self._go(Pacing.PACED, self.spacing / min(QUICKER, max(SLOWER, ABOVE * (1 - share))))

    def _keep(self, now: float, spacing: float, former_share: float) -> None:
        self._share, self._share_paced, self._failed_at = former_share, 1 - 1 / ABOVE, now
        self._found = spacing
        self._go(Pacing.PACED, spacing)

    def _give_up(self, now: float) -> None:
        self._next_trial = now + AGAIN
        self._go(Pacing.FREE)

    def _go(self, state: Pacing, spacing: float = 0.0) -> None:
        self.state, self.spacing = state, spacing

    def _begin(self, now: float) -> None:
        self._since, self._ended, self._failed, self._braked = now, 0, 0, 0
