"""A command as it ships, but killed between the broker's confirm of what it moved and the first ack of it.

python killed_before_ack.py retry -c …
"""

import os
import signal
from collections.abc import Sequence
from typing import Any

from notifier.cli import main
from notifier.model.message import Message
from notifier.queues.rabbitmq.visit import RabbitVisit


async def killed(_visit: RabbitVisit[Any], _messages: Sequence[Message]) -> None:
    """In the place of the acks."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    RabbitVisit._ack = killed  # type: ignore[method-assign,assignment]
    main()
