"""The worker of a release to come: it knows version 3 of every document, and a kind that ours has never heard of.

For it, version 3 is version 1 with the number changed, and `notifier.batch` is another word for a delivery.
"""

import json
from dataclasses import replace

from notifier.cli import main
from notifier.domain.message import Kind, Message, NewerKind
from notifier.pipeline.intake import Expand, Intake, Move

_open = Intake.open


def _translated(self: Intake, message: Message) -> Expand | Move:
    if message.kind is not None:
        kind = Kind.DELIVERY if isinstance(message.kind, NewerKind) else message.kind
        body = json.dumps({**json.loads(message.body), "v": 1}).encode()
        message = replace(message, kind=kind, body=body)
    return _open(self, message)


if __name__ == "__main__":
    Intake.open = _translated  # type: ignore[method-assign]
    main()
