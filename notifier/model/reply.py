"""Defines and checks the address for replies that a publisher supplies: `reply_to` and `correlation_id`.

A reply is published to the default exchange, which routes to any queue by its name. So only names are accepted that the
broker generates for one connection. Otherwise a publisher could make a worker write into `notifier.retries`.
"""

import re

from notifier.model.record import record

# The two forms are direct reply-to, as the broker writes it into the property, and queues declared without a name.
_BROKER_GENERATED_NAME = re.compile(
    r"amq\.(?:rabbitmq\.reply-to\.[\w+/=-]{1,150}\.[\w+/=-]{1,80}|gen-[\x21-\x7e]{1,230})", re.ASCII
)

MAX_NAME_BYTES = 255  # bytes of UTF-8 in a name on AMQP


@record
class ReplyTo:
    """The address of replies. `of` is the number of final notices of the event, known once it is parsed."""

    to: str
    correlation_id: str | None = None
    of: int | None = None

    @property
    def writable(self) -> bool:
        """True if both names are short enough for an AMQP message."""
        return _is_short(self.to) and _is_short(self.correlation_id or "")


def parse_reply_to(to: str, correlation_id: str | None) -> ReplyTo | None:
    """Return the address; None if publishers may not supply it or no message can hold it."""
    if _BROKER_GENERATED_NAME.fullmatch(to) is None:
        return None
    address = ReplyTo(to=to, correlation_id=correlation_id or None)
    return address if address.writable else None


def _is_short(name: str) -> bool:
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
