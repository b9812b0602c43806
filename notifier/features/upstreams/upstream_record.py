"""Count and log the requests of upstream providers, and the look-ups of sessions, by result."""

import time
from collections.abc import Callable, Iterable, Iterator

import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

from notifier.delivery.facts import FactHandlers
from notifier.features.upstreams.server_keys import JwksResult
from notifier.features.upstreams.upstream import SessionsLookedUp
from notifier.features.upstreams.upstream_token import UpstreamResult
from notifier.model.moment import MinuteLimit
from notifier.telemetry.families import labelled_family

_LOOK_UP_RESULTS = ("found", "no_session", "away", "given_up")
_SUCCESSES = (UpstreamResult.ACCEPTED, UpstreamResult.REPLAYED)


class UpstreamRecord:
    """The counters of upstreams, and the log of failures. `monotonic` is a clock that never jumps."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._accepted_at: dict[str, float] = {}
        self._requests: dict[tuple[str, str], int] = {}
        self._look_ups: dict[tuple[str, str], int] = {}
        self._jwks: dict[tuple[str, str], int] = {}
        self._log_limit = MinuteLimit(monotonic)
        self.observe = FactHandlers({SessionsLookedUp: self._on_look_up})
        """Count a look-up, and log it if it found no session or failed."""

    def create_series(self, upstreams: Iterable[str]) -> None:
        """Start the series of each upstream at zero, so that PromQL's `increase()` counts the first request."""
        for name in upstreams:
            for result in UpstreamResult:
                self._requests.setdefault((name, result.value), 0)
            for look_up_result in _LOOK_UP_RESULTS:
                self._look_ups.setdefault((name, look_up_result), 0)

    def create_relay_series(self, relays: Iterable[str]) -> None:
        """Start the series of each relay at zero."""
        for name in relays:
            for result in UpstreamResult:
                self._requests.setdefault((name, result.value), 0)
            for jwks_result in JwksResult:
                self._jwks.setdefault((name, jwks_result.value), 0)

    def last_accepted_at(self, upstream: str) -> float | None:
        """Return when the last token of an upstream or relay was accepted (epoch seconds); None if none was."""
        return self._accepted_at.get(upstream)

    def on_jwks(self, relay: str, result: JwksResult) -> None:
        """Count a request of a relay's joined JWK Set."""
        self._jwks[relay, result.value] += 1

    def on_request(self, upstream: str, result: UpstreamResult, reason: str = "") -> None:
        """Count a request of a configured upstream, and log it unless it succeeded, at most once a minute per result.

        Anyone can cause a failure. `reason`: the error, without `sub` and `sid`.
        """
        key = (upstream, result.value)
        self._requests[key] = self._requests.get(key, 0) + 1
        if result in _SUCCESSES:
            self._accepted_at[upstream] = self._clock()
        if result in _SUCCESSES or not self._log_limit.allows(*key):
            return
        self._log_limit.on_logged(*key)
        log = structlog.get_logger().bind(upstream=upstream)
        hint = "notifier explain NotifierUpstreamRefused"
        if result is UpstreamResult.NO_SESSION:
            _log_no_session(upstream, "none has the sid that a browser came with")
        elif result is UpstreamResult.OFF:
            log.warning("upstream_front_channel_off", setting=f"upstreams.{upstream}.front_channel", help=hint)
        else:
            log.warning("upstream_refused", result=result.value, reason=reason, help=hint)

    def _on_look_up(self, fact: SessionsLookedUp) -> None:
        """Count a look-up, and log it if it found no session or failed."""
        key = (fact.upstream, fact.result)
        self._look_ups[key] = self._look_ups.get(key, 0) + 1
        if fact.result == "no_session":
            _log_no_session(fact.upstream, fact.text)
        if fact.result == "away" and self._log_limit.allows(*key):
            self._log_limit.on_logged(*key)
            structlog.get_logger().warning(
                "upstream_sessions_away", upstream=fact.upstream, reason=fact.text,
                help="notifier explain NotifierUpstreamSessionsAway",
            )  # fmt: skip

    def families(self) -> Iterator[Metric]:
        """Return the metric families for a scrape."""
        labels = ("upstream", "result")
        text = "Requests of upstream providers to sign a user out."
        yield labelled_family(CounterMetricFamily, "upstream_requests_total", text, labels, self._requests)
        text = "Requests of the joined JWK Set of a relay."
        yield labelled_family(CounterMetricFamily, "relay_jwks_requests_total", text, labels, self._jwks)
        text = "Questions which sessions here ended with one at an upstream."
        yield labelled_family(CounterMetricFamily, "upstream_lookups_total", text, labels, self._look_ups)


def _log_no_session(upstream: str, reason: str) -> None:
    """Log that no local session ended. This is normal for a user who was not signed in here."""
    hint = f"if the user was signed in here, compare how upstreams.{upstream}.resolve finds sessions"
    structlog.get_logger().info("upstream_no_session", upstream=upstream, reason=reason, hint=hint)
