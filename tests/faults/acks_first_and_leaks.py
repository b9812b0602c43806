"""A worker with two broken promises: it acks each message as it takes it, and leaves a file open for each.

One message in fifty it forgets once acked, so that it loses some even if nothing kills it while it holds any.
A soak must tell both.
"""

from collections.abc import Callable
from pathlib import Path

from notifier.cli import main
from notifier.domain.message import Message
from notifier.pipeline.worker import Worker
from tests.faults.acks_first import _ack_and_take


def _leaking(files: list[object]) -> Callable[[Worker, Message], None]:
    """A `take` that keeps what it opens in `files`."""

    def take(worker: Worker, message: Message) -> None:
        files.append(Path("/dev/null").open("rb"))  # noqa: SIM115  left open: that is the point
        if len(files) % 50:
            _ack_and_take(worker, message)
        else:
            worker._ledger._acknowledger.ack(message)

    return take


if __name__ == "__main__":
    Worker.take = _leaking([])  # type: ignore[assignment, method-assign]
    main()
