"""A worker with a broken promise: it acks each message as it takes it. The ledger must see what is lost."""

from notifier.cli import main
from notifier.messages.worker import Worker
from notifier.model.message import Message

_take = Worker.take


def _ack_and_take(self: Worker, message: Message) -> None:
    self.ledger._queue.ack(message)
    _take(self, message)


if __name__ == "__main__":
    Worker.take = _ack_and_take  # type: ignore[method-assign]
    main()
