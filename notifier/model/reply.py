"""Defines the address for replies that a publisher gives (`reply_to`, `correlation_id`), and judges who may give one.

A reply goes to the default exchange, and so to whatever queue has the name. So a publisher may give only a name that
the broker makes up and gives to one connection; otherwise it could have the worker write into `notifier.retries`.
"""

import re

from notifier.model.frozen import frozen

# The two are the names of direct reply-to, as the broker writes it into the property, and of queues declared without.
_BROKER_GENERATED_NAME = re.compile(
    r"amq\.(?:rabbitmq\.reply-to\.[\w+/=-]{1,150}\.[\w+/=-]{1,80}|gen-[\x21-\x7e]{1,230})", re.ASCII
)

MAX_NAME_BYTES = 255  # bytes of UTF-8 that a name may have on AMQP


@frozen
class ReplyTo:
    """The address of replies. `of` is how many clients the event has, known once it is read."""

    to: str
    correlation_id: str | None = None
    of: int | None = None

    @property
    def writable(self) -> bool:
        """True if a message can hold both names. A name that was no UTF-8 is three times as long once decoded."""
        return _is_short(self.to) and _is_short(self.correlation_id or "")


def parse_reply_to(to: str, correlation_id: str | None) -> ReplyTo | None:
    """Return the address, or None if no publisher may name it or no message can hold it."""
    if _BROKER_GENERATED_NAME.fullmatch(to) is None:
        return None
    address = ReplyTo(to=to, correlation_id=correlation_id or None)
    return address if address.writable else None


def _is_short(name: str) -> bool:
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
