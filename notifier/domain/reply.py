"""Whom a publisher wants told what became of its event (`reply_to`, `correlation_id`), and who may ask for that.

A reply goes to the default exchange, and so to whatever queue has the name. A publisher may name only what the broker
makes up by itself and gives to one connection: else it could have the worker write into `notifier.retries`.
"""

import re

from notifier.domain.frozen import frozen

# The two are the names of direct reply-to, as the broker writes it into the property, and of queues declared without.
_MADE_UP_BY_THE_BROKER = re.compile(
    r"amq\.(?:rabbitmq\.reply-to\.[\w+/=-]{1,150}\.[\w+/=-]{1,80}|gen-[\x21-\x7e]{1,230})", re.ASCII
)


SHORT = 255  # bytes of UTF-8 that a name may have on AMQP; a longer one cannot be written


@frozen
class ReplyTo:
    """An address. `of`: for how many clients a fate will be told in all, known once the event is read."""

    to: str
    correlation_id: str | None = None
    of: int | None = None

    @property
    def writable(self) -> bool:
        """Whether a message can bear both names. What came as no UTF-8 is three times as long once it was decoded."""
        return _is_short(self.to) and _is_short(self.correlation_id or "")


def asked_by_publisher(to: str, correlation_id: str | None) -> ReplyTo | None:
    """The address, where a publisher may name it and a reply could bear it."""
    if _MADE_UP_BY_THE_BROKER.fullmatch(to) is None:
        return None
    asked = ReplyTo(to=to, correlation_id=correlation_id or None)
    return asked if asked.writable else None


def _is_short(name: str) -> bool:
    try:
        return len(name.encode()) <= SHORT
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
