"""The settings of the connection to RabbitMQ."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from notifier.model.client import TlsFiles
from notifier.model.defaults import BUCKETS, MAX_EVENT, MOST_BUCKETS, PREFETCH
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.message import MAX_PARKED_SECONDS, Binding, Lane


def _as_the_url_says() -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitOptions:
    """The broker's address and how to connect to it. Raises ConfigurationError if the parts contradict each other.

    `urls`: hosts of one cluster, tried in turn. `credentials` returns user name and password, or None to use those of
    the URL. It is called per connection, so that a new password needs no restart. A lane missing from `prefetch` gets
    its default. At most `max_event` bytes of a publisher's message are kept. Each source of the `bindings` has a
    separate queue. A delivery stays in one of the `buckets` for `parked_for` seconds, a power of two, which only tests
    change.
    """

    urls: tuple[str, ...] = field(repr=False)  # may contain a password
    credentials: Callable[[], tuple[str, str] | None] = field(default=_as_the_url_says, repr=False)
    tls: TlsFiles | None = None
    prefix: str = "notifier"
    topology: Literal["declare", "verify"] = "declare"
    bindings: tuple[Binding, ...] = ()
    prefetch: Mapping[Lane, int] = field(default_factory=lambda: PREFETCH)
    max_event: int = MAX_EVENT
    buckets: int = BUCKETS
    parked_for: int = int(MAX_PARKED_SECONDS)
    name: str = "notifier"

    def __post_init__(self) -> None:
        """Refuse settings that would be ignored silently or would lose messages."""
        mistakes = []
        if not self.urls:
            mistakes.append(InputIssue("queue.url", "name at least one host: amqp://localhost:5672/"))
        if self.tls is not None and any(not url.startswith("amqps:") for url in self.urls):
            mistakes.append(InputIssue("queue.tls", "needs an amqps:// URL; amqp:// is not encrypted"))
        for lane, count in self.prefetch.items():
            if not 1 <= count <= 2000:
                # 0 means "no limit" in AMQP, but a quorum queue then sends at most 2,000 messages.
                mistakes.append(InputIssue(f"queue.prefetch.{lane}", f"{count} is not between 1 and 2000"))
        if not 1 <= self.buckets <= MOST_BUCKETS:
            mistakes.append(InputIssue("queue.buckets", f"{self.buckets} is not between 1 and {MOST_BUCKETS}"))
        if mistakes:
            raise ConfigurationError(mistakes)

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the sources that have a queue."""
        return tuple(dict.fromkeys(binding.source for binding in self.bindings))

    def prefetch_of(self, lane: Lane) -> int:
        """Return the maximum number of unacked messages of this lane per worker."""
        return self.prefetch.get(lane, PREFETCH[lane])
