"""Detects whether a client is overloaded, and limits the rate of attempts at it. Pure: the clock is an argument.

An overloaded client refuses the attempts that exceed its capacity: of fewer attempts a smaller share fails. A broken
client fails as often at any rate. This worker evaluates one sample of attempts after another. *Too many* means that
more than a fifth of a sample failed.

| state | event | next state |
|---|---|---|
| unlimited | too many fail, in a full sample | trial, at 0.8 × the successes a second |
| | too many fail, most of them with a status below 500 (429 …) | limited, at the successes a second |
| | a peer reports its trial | peer trial, at 0.8 × the own successes a second |
| | a peer reports its limit | limited, at 0.8 × the own successes a second |
| trial | at most a third of the former share fails | unlimited trial |
| | more: the client is broken, or was down for a moment | unlimited, without a trial for 30 s |
| unlimited trial | too many fail: the client is overloaded | limited, at the rate of the trial |
| | few fail: the client has recovered | unlimited |
| peer trial | the peer reports its limit: its trial helped | limited, at the same rate |
| | no report for 10 s | unlimited, without a trial for 30 s |
| limited | a sample ends | limited, at 1.43 × the successes a second |
| | a peer reports its limit | limited, 15 % of the way to that rate |
| | on average three quarters of the former share fail: broken | unlimited, without a trial for 30 s |
| | no failure for 30 s, or over 1,000 attempts a second | unlimited |
| | the limit has fallen to a quarter: it is outdated | unlimited |
| any | a long outage ends: the client may have restarted with more capacity | unlimited |
| | an outage ends in which only first attempts failed: a limit would only delay the others | unlimited |

A sample changes the limit by a factor of 0.5 to 1.125. The limit settles where 30 % of the attempts fail, with one
worker as with several: a client whose threads are all busy now and then refuses some attempts at any useful rate.

Workers that share a client run one trial at a time, and the worker that began it decides. Deliveries come to all
workers alike, so their limits move towards each other with each report. A worker without failures ignores the reports.
A client that was down for a moment looks overloaded, too. So no trial begins after six successes in a row or a sample
without a success, and eight attempts without a failure end a trial if most failed before.

Where several workers probe, overload looks like an outage of some seconds. So a limit survives a short outage, and only
the sample is restarted. After a long one the limit would delay parked deliveries: failed probes have lowered it, and
so few attempts raise it slowly.
"""

import math
from dataclasses import dataclass
from enum import Enum

from notifier.model.client import Client

FULL_SAMPLE_ATTEMPTS = 24
SMALL_SAMPLE_ATTEMPTS = 8  # suffice while a limit is set, and after `LONGEST_SAMPLE_SECONDS`
EARLY_SAMPLE_ATTEMPTS = 96  # end a sample before `USUAL_SAMPLE_SECONDS`
SHORTEST_SAMPLE_SECONDS, USUAL_SAMPLE_SECONDS, LONGEST_SAMPLE_SECONDS = 0.5, 1.0, 2.0
LONGEST_TRIAL_SECONDS = 4.0
IN_FLIGHT_SECONDS = 0.25  # an attempt that fails so soon after the beginning of a trial began before the trial
TOO_MANY_SHARE = 0.2  # of a sample
RECOVERED_ATTEMPTS = 6  # successes in a row which show that the client is not overloaded, but was down for a moment
MOST_FAILED_SHARE = 0.5  # of the former sample: then few successes in a row are evidence that a trial helped
TRIAL_FACTOR = 0.8  # × the successes a second: the rate of a trial
TRIAL_HELPED_FACTOR = 1 / 3  # × the former share of failures
LIMIT_HELPS_FACTOR = 0.75  # × the former share of failures
HEADROOM_FACTOR = 1.43  # × the successes a second: the next limit
LEAST_CHANGE_FACTOR, MOST_CHANGE_FACTOR = 1 / 2, 9 / 8  # × the limit: with more, workers would oscillate
OUTDATED_SPACING_FACTOR = 4.0  # × the first spacing
PEER_WEIGHT = 0.15  # the weight of a peer's limit in this worker's limit, for each report
SAMPLE_WEIGHT = 0.25  # of a full sample in the average share of failures
LONG_OUTAGE_SECONDS = 10.0
RETRIAL_SECONDS = 30.0  # from a trial that did not help to the next
PEER_TRIAL_SECONDS = 10.0
PEER_SPACING_SECONDS, PEER_SPACING_FACTOR = 1.0, 16  # bound the first spacing: see `on_peer_report`
EARLY_TOKEN_SECONDS = 1e-6  # by which a token may come early, so that one token is not slightly less
SHORTEST_SPACING_SECONDS = 1e-3  # a shorter spacing counts as unlimited

RateState = Enum("RateState", ("UNLIMITED", "TRIAL", "UNLIMITED_TRIAL", "PEER_TRIAL", "LIMITED"))  # see the table above


@dataclass(slots=True)
class AttemptRate:
    """The rate of attempts at one client, as a token bucket: each attempt takes a token.

    `spacing`: the seconds between two attempts by the detected limit; 0 without a limit. `registered_interval`: the
    seconds between two attempts by the registered rate; 0 without one. `token_at`: when the last token is replaced.
    """

    spacing: float = 0.0
    registered_interval: float = 0.0
    token_at: float = -math.inf
    state: RateState = RateState.UNLIMITED
    _sample_began_at: float = 0.0  # failures before this moment are ignored
    _concurrency: int = 1  # when the sample began
    _ended_count: int = 0
    _failed_count: int = 0
    _throttled_count: int = 0
    _successes_in_a_row: int = 0
    _failed_at: float = -math.inf  # the last failure, or the moment when the limit was set
    _former_share: float = 0.0  # the share of attempts that failed without a limit
    _limited_share: float = 0.0  # the mean share of attempts that fail with the limit
    _first_spacing: float = 0.0  # the spacing of the trial, or the first spacing of the limit
    _no_trial_before: float = 0.0

    @property
    def former_share(self) -> float:
        """The share of attempts that failed before the limit was set; 0 without a limit, and during a trial."""
        return self._former_share if self.state is RateState.LIMITED else 0.0

    def tokens(self, now: float, limit: int) -> int:
        """Return how many attempts the registered rate and the detected limit allow now: at most `limit`.

        Unused tokens of a second (registered rate) or of 0.1 s (detected limit) are kept, and always one.
        """
        count = float(limit)
        if self.registered_interval:
            count = min(count, (now - self.token_at + max(1.0, self.registered_interval)) / self.registered_interval)
        if self.spacing:
            count = min(count, (now - self.token_at + max(0.1, self.spacing)) / self.spacing)
        return int(count)

    @property
    def successes_in_a_row(self) -> int:
        """The number of quick successes since the last failure."""
        return self._successes_in_a_row

    def on_registration(self, interval: float, now: float) -> None:
        """Adopt the registered rate, given as the seconds between two attempts.

        Time without attempts counts at the new rate. A rate that rises allows one attempt at once, not many: a worker
        whose share was smaller may follow an attempt that has just used it.
        """
        former = self.registered_interval
        self.token_at += max(1.0, interval) - max(1.0, former)
        if 0 < interval < former:
            self.token_at = max(self.token_at, now + max(1.0, interval) - interval - EARLY_TOKEN_SECONDS)
        self.registered_interval = interval

    def on_started(self, now: float) -> None:
        """Take the token of an attempt that starts."""
        self.token_at = max(now, self.token_at) + max(self.registered_interval, self.spacing)

    def is_steady(self, now: float) -> bool:
        """Return True if there is no limit, no attempt failed for 30 s, and the last 24 succeeded."""
        all_succeed = self._successes_in_a_row >= FULL_SAMPLE_ATTEMPTS
        return not self.spacing and all_succeed and now - self._failed_at > RETRIAL_SECONDS

    def on_result(self, now: float, *, failed: bool, throttled: bool = False, concurrency: int = 1) -> None:
        """Count an ended attempt, and evaluate the sample if it is complete.

        `throttled`: the client answered that it receives too many requests. `concurrency`: its present limit.
        """
        seconds = now - self._sample_began_at
        if failed:
            self._successes_in_a_row, self._failed_at = 0, now
            if seconds < 0:
                return
            self._failed_count += 1
            self._throttled_count += throttled
        else:
            self._successes_in_a_row += 1
        self._ended_count += 1
        if self._is_complete(seconds):
            if not self.spacing and concurrency > 2 * self._concurrency:
                self._begin_sample(now)  # the limit more than doubled meanwhile: the sample does not show the full rate
            else:
                self._evaluate(now, seconds)
            self._concurrency = concurrency

    def on_peer_report(self, spacing: float, former_share: float, now: float) -> None:
        """Follow a peer's trial (`former_share` 0) or limit, unless the last 24 attempts here succeeded.

        `spacing`: the peer's seconds between two attempts.
        """
        if spacing < SHORTEST_SPACING_SECONDS or self._successes_in_a_row >= FULL_SAMPLE_ATTEMPTS:
            return
        match self.state:
            case RateState.UNLIMITED:
                seconds = max(SHORTEST_SAMPLE_SECONDS, now - self._sample_began_at)
                rate = TRIAL_FACTOR * (self._ended_count - self._failed_count) / seconds
                # With few successes here, the spacing is at most 16 × the peer's, and at most 1 s or the peer's.
                min_rate = max(1 / (PEER_SPACING_FACTOR * spacing), min(1 / PEER_SPACING_SECONDS, 1 / spacing))
                self.state, self.spacing = RateState.PEER_TRIAL, 1 / max(rate, min_rate)
            case RateState.LIMITED if former_share:
                self.spacing = 1 / ((1 - PEER_WEIGHT) / self.spacing + PEER_WEIGHT / spacing)
        if self.state is RateState.PEER_TRIAL:
            if former_share:
                self._limit(self.spacing, former_share, now)
            self._begin_sample(now)

    def on_outage(self, now: float, seconds: float, *, first_attempts_only: bool) -> None:
        """Restart the sample after an outage, and lift the limit if the outage was long or only first attempts fail."""
        if seconds > LONG_OUTAGE_SECONDS or first_attempts_only:
            self._lift()
        self._begin_sample(now)

    def _is_complete(self, seconds: float) -> bool:
        """Return True if the sample, which has lasted for so many seconds, is large enough for its state."""
        ended, failed = self._ended_count, self._failed_count
        if self.state is RateState.PEER_TRIAL:
            return seconds >= PEER_TRIAL_SECONDS
        if self.state is RateState.UNLIMITED_TRIAL and failed >= SMALL_SAMPLE_ATTEMPTS:
            return seconds > 0  # attempts that fail at the same moment are evaluated with the next attempt
        most_failed_before = self._former_share > MOST_FAILED_SHARE
        if self.state is RateState.TRIAL and most_failed_before and not failed and ended >= SMALL_SAMPLE_ATTEMPTS:
            return seconds > 0
        if seconds < (SHORTEST_SAMPLE_SECONDS if ended >= EARLY_SAMPLE_ATTEMPTS else USUAL_SAMPLE_SECONDS):
            return False
        if self.state is RateState.TRIAL:  # few attempts at a broken client may all succeed by chance
            if seconds >= LONGEST_TRIAL_SECONDS and (failed or ended >= SMALL_SAMPLE_ATTEMPTS):
                return True
            return ended >= (FULL_SAMPLE_ATTEMPTS if failed else 2 * SMALL_SAMPLE_ATTEMPTS)
        small_suffices = self.state is RateState.LIMITED or seconds >= LONGEST_SAMPLE_SECONDS
        return not failed or ended >= (SMALL_SAMPLE_ATTEMPTS if small_suffices else FULL_SAMPLE_ATTEMPTS)

    def _evaluate(self, now: float, seconds: float) -> None:
        """Change the state by the complete sample of so many seconds (see the table), and begin the next sample."""
        ended, failed = self._ended_count, self._failed_count
        share, most_throttled = failed / ended, 2 * self._throttled_count > failed
        self._begin_sample(now)
        match self.state:
            case RateState.UNLIMITED:
                before = self._former_share
                self._former_share = (share + before) / 2 if before > TOO_MANY_SHARE else share
                may_try = self._successes_in_a_row < RECOVERED_ATTEMPTS and now >= self._no_trial_before
                if may_try and TOO_MANY_SHARE < share < 1 and ended >= FULL_SAMPLE_ATTEMPTS:
                    # A sample of more than 2 s includes time without a delivery for the client.
                    success_rate = (ended - failed) / min(seconds, LONGEST_SAMPLE_SECONDS)
                    if most_throttled:
                        self._limit(1 / success_rate, self._former_share, now)
                    else:
                        self.state, self.spacing = RateState.TRIAL, 1 / (TRIAL_FACTOR * success_rate)
                        self._sample_began_at = now + IN_FLIGHT_SECONDS
            case RateState.TRIAL if share <= TRIAL_HELPED_FACTOR * self._former_share:
                self.state, self._first_spacing, self.spacing = RateState.UNLIMITED_TRIAL, self.spacing, 0.0
            case RateState.TRIAL | RateState.PEER_TRIAL:
                self._give_up(now)
            case RateState.UNLIMITED_TRIAL if share > TOO_MANY_SHARE:
                self._limit(self._first_spacing, self._former_share, now)
            case RateState.UNLIMITED_TRIAL:
                self._lift()
            case RateState.LIMITED:
                weight = SAMPLE_WEIGHT * min(1.0, ended / FULL_SAMPLE_ATTEMPTS)
                self._limited_share += weight * (share - self._limited_share)
                self._adjust(share, now)

    def _limit(self, spacing: float, former_share: float, now: float) -> None:
        """Set a limit. Its mean share of failures begins with 30 %, at which a limit settles."""
        self.state, self.spacing, self._first_spacing = RateState.LIMITED, spacing, spacing
        self._former_share, self._limited_share, self._failed_at = former_share, 1 - 1 / HEADROOM_FACTOR, now

    def _adjust(self, share: float, now: float) -> None:
        """Change the limit by the share of failures in the last sample, or lift it if it is no longer useful."""
        all_succeeded = now - self._failed_at > RETRIAL_SECONDS
        is_in_range = SHORTEST_SPACING_SECONDS < self.spacing < OUTDATED_SPACING_FACTOR * self._first_spacing
        if self._limited_share > LIMIT_HELPS_FACTOR * self._former_share:
            self._give_up(now)
        elif all_succeeded or not is_in_range:
            self._lift()
        else:
            self.spacing /= min(MOST_CHANGE_FACTOR, max(LEAST_CHANGE_FACTOR, HEADROOM_FACTOR * (1 - share)))

    def _give_up(self, now: float) -> None:
        """Lift the limit or end the trial, and begin no other trial for 30 s."""
        self._lift()
        self._no_trial_before = now + RETRIAL_SECONDS

    def _lift(self) -> None:
        self.state, self.spacing = RateState.UNLIMITED, 0.0

    def _begin_sample(self, now: float) -> None:
        self._sample_began_at, self._ended_count, self._failed_count, self._throttled_count = now, 0, 0, 0


def registered_interval(client: Client, worker_count: int) -> float:
    """Return the seconds between two attempts by this worker's share of the registered rate, 0 without one."""
    return 0.0 if client.per_second is None else worker_count / client.per_second
