"""The settings of the connection to RabbitMQ."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from notifier.model.client import TlsFiles
from notifier.model.defaults import BUCKETS, MAX_EVENT, PREFETCH
from notifier.model.message import MAX_PARKED_SECONDS, Binding, Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitOptions:
    """The broker's address and how to connect to it. The settings have checked the values.

    `urls`: hosts of one cluster, tried one after the other. `credentials` returns user name and password, or None to
    use those of the URL. It is called per connection, so that a new password needs no restart. A lane missing from
    `prefetch` gets its default. At most `max_event` bytes of a publisher's message are kept. Each source of the
    `bindings` has a separate queue. A delivery stays in one of the `buckets` for `parked_for` seconds, a power of two,
    which only tests change.
    """

    urls: tuple[str, ...] = field(repr=False)  # may contain a password
    credentials: Callable[[], tuple[str, str] | None] = field(default=lambda: None, repr=False)
    tls: TlsFiles | None = None
    prefix: str = "notifier"
    topology: Literal["declare", "verify"] = "declare"
    bindings: tuple[Binding, ...] = ()
    prefetch: Mapping[Lane, int] = field(default_factory=lambda: PREFETCH)
    max_event: int = MAX_EVENT
    buckets: int = BUCKETS
    parked_for: int = int(MAX_PARKED_SECONDS)
    name: str = "notifier"

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the sources that have a queue."""
        return tuple(dict.fromkeys(binding.source for binding in self.bindings))

    def prefetch_of(self, lane: Lane) -> int:
        """Return the maximum number of unacked messages of this lane per worker."""
        return self.prefetch.get(lane, PREFETCH[lane])
