"""A message of a source as notifier itself queues it: what came by HTTP, and what a replay reads anew.

The body stays as it came, byte for byte. The rest of the message is one JSON document in the header `received`. The
message's `type` is proof that notifier wrote it, so the header `source` can be believed.
"""

from pydantic_core import from_json, to_json

from notifier.domain.errors import MalformedEvent, Mistake
from notifier.domain.frozen import replace
from notifier.domain.message import Kind, Message, Outgoing

_SOURCE = "source"
_RECEIVED = "received"
_PROPERTIES = ("message_id", "timestamp", "user_id", "app_id")


def as_sourced(message: Message, new_id: str) -> Outgoing:
    """Return the message as one of ours. Its headers must be texts, numbers or booleans."""
    received = {name: value for name in _PROPERTIES if (value := getattr(message, name)) is not None}
    return Outgoing(
        kind=Kind.SOURCED,
        body=message.body,
        message_id=new_id,
        headers={
            _SOURCE: message.source or "",
            _RECEIVED: to_json(received | {"headers": dict(message.headers)}).decode(),
        },
        content_type=message.content_type or "",
    )


def as_received(message: Message) -> Message:
    """Return the message as its source sent it. Raises MalformedEvent."""
    try:
        received = from_json(str(message.headers[_RECEIVED]))
        source, headers = str(message.headers[_SOURCE]), dict(received["headers"])
    except (KeyError, TypeError, ValueError):
        raise MalformedEvent((Mistake("", "a message of a source without its header `received`"),)) from None
    given = {name: received.get(name) for name in _PROPERTIES}
    return replace(message, kind=None, source=source, headers=headers, **given)
