"""Count the foreign responses to the events of a lane, and schedule the probes of deferred events. No I/O.

An event to which an intermediary responds in place of notifier blocks its lane until it has had `MAX_ATTEMPTS` such
responses. Then it is deferred: the lane continues without it. An event that notifier does not permit (403) is deferred
at once. Deferred events are probed one at a time, in rotation. A confirmed probe makes all of them normal again.
Nothing is stored: after a restart each event has its attempts again.
"""

from collections.abc import Callable, Sequence

from logout_notifier_publisher.backoff import Backoff

MAX_ATTEMPTS = 3
FIRST_PROBE_SECONDS, LONGEST_PROBE_SECONDS = 10.0, 60.0


class InterceptionTracker:
    """The foreign responses of one lane. An event has the name of its file. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._name = ""  # one counter suffices: a lane retries its oldest event until that is confirmed or deferred
        self.attempt_count = 0
        self._backoff = Backoff(FIRST_PROBE_SECONDS, LONGEST_PROBE_SECONDS)
        self._probe_at = 0.0
        self._probed_name = ""

    def on_intercepted(self, name: str) -> None:
        """Count a foreign response to this event."""
        self.attempt_count = self.attempt_count + 1 if name == self._name else 1
        self._name = name

    @property
    def exhausted(self) -> bool:
        """Whether the counted event has had all its attempts."""
        return self.attempt_count >= MAX_ATTEMPTS

    def on_first_deferred(self) -> None:
        """Schedule the first probe."""
        self._backoff.reset()
        self._probe_at = self._clock() + self._backoff.next_delay()

    def seconds_until_probe(self) -> float:
        """Return the time until a deferred event is probed, zero if it is due."""
        return max(0.0, self._probe_at - self._clock())

    def select_probe(self, deferred: Sequence[str]) -> str:
        """Return the deferred event to probe now, and schedule the next probe. `deferred` is sorted, and not empty."""
        probe = next((name for name in deferred if name > self._probed_name), deferred[0])
        self._probed_name = probe
        self._probe_at = self._clock() + self._backoff.next_delay()
        return probe
