"""A client that is only skipped for `session_only` is reported after a day."""

from notifier.delivery.facts import Skipped
from notifier.model.client import Client
from notifier.model.client_channel import ClientChannel
from notifier.model.notice import SkipReason
from notifier.model.registry import Registry
from notifier.model.trouble import TroubleKind
from notifier.operators.status.session_only_watch import REPORT_SECONDS, SessionOnlyWatch

ISS = "https://id.example.com"
CHANNEL = ClientChannel(kind="x", uri="https://x.example.com/", member="x", ends_all=True)


class Harness:
    """The watch, its clock, and when the client had its last result."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.last_activity = 0.0
        shop = Client(iss=ISS, client_id="shop", backchannel_logout_uri=None, channel=CHANNEL)
        self.registry = Registry(clients={ISS: {"shop": shop}})
        self.watch = SessionOnlyWatch(lambda: self.registry, lambda _: self.last_activity, lambda: self.now)

    def skip(self, reason: SkipReason = SkipReason.SESSION_ONLY) -> None:
        """Observe one skipped client."""
        self.watch.observe(Skipped(iss=ISS, client_id="shop", event_id="e", reason=reason))

    def counts(self) -> list[int]:
        """Return the counts of the troubles."""
        troubles = list(self.watch.troubles())
        assert all((each.kind, each.client_id) == (TroubleKind.SESSION_ONLY, "shop") for each in troubles)
        return [each.count for each in troubles]


def test_client_is_reported_after_a_day() -> None:
    """With the number of skipped events. A client without an address is not counted."""
    harness = Harness()
    harness.skip(SkipReason.NO_URI)
    harness.skip()
    harness.now += REPORT_SECONDS - 1
    harness.skip()
    assert not harness.counts()
    harness.now += 1
    assert harness.counts() == [2]


def test_result_ends_the_report() -> None:
    """A delivery, a failure or a deferral: the client has received an event without sid."""
    harness = Harness()
    harness.skip()
    harness.now += REPORT_SECONDS
    harness.last_activity = harness.now
    assert not harness.counts()
    harness.now += 1
    harness.skip()
    harness.now += REPORT_SECONDS
    assert harness.counts() == [1]


def test_changed_registration_ends_the_report() -> None:
    """The client is gone, or has `sessions: true`."""
    harness = Harness()
    harness.skip()
    harness.now += REPORT_SECONDS
    assert harness.counts() == [1]
    harness.registry = Registry()
    assert not harness.counts()
