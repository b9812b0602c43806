"""The messages of one worker in a fixed story: the same clock, the same ids, every kind of message.

    python -m tests.recorded.story

records the missing ones. A recorded message is never written again.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from notifier.model.message import Lane, Message, MessageDraft, parse_kind
from notifier.model.outcome import HttpResponse, TransportResult
from notifier.model.request import Request
from tests.delivery.worker_harness import ISS, PARKED, WorkerHarness, client, running

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A message in a queue: its AMQP properties and headers, and its body as JSON."""

    queue: str
    type: str | None
    content_type: str
    message_id: str
    headers: dict[str, str]
    body: Any

    @classmethod
    def of(cls, queue: str, message: MessageDraft) -> Self:
        """Return a message that was just written."""
        return cls(
            queue=queue,
            type=str(message.kind),
            content_type=message.content_type,
            message_id=message.message_id,
            headers=dict(message.headers),
            body=json.loads(message.body),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return a recorded message."""
        return cls(**json.loads(path.read_text()))

    def text(self) -> str:
        """Return the recorded text."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, indent=2) + "\n"

    def message(self) -> Message:
        """Return the message as a worker receives it."""
        return Message(
            lane=Lane.EVENTS if self.queue == "events" else Lane.RETRIES,
            body=json.dumps(self.body).encode(),
            tag=None,
            kind=parse_kind(self.type),
            content_type=self.content_type,
            headers=self.headers,
            message_id=self.message_id,
        )


def kept(folder: str) -> dict[str, Recorded]:
    """Return the recorded messages by name."""
    return {path.stem: Recorded.load(path) for path in sorted((HERE / folder).glob("*.json"))}


async def run_story() -> dict[str, Recorded]:
    """Run the story with this release, and return its messages by their recorded names."""
    found = {}
    for name, queue in _QUEUES.items():
        harness = WorkerHarness(client("refuses"), client("fails"), client("shop"), inline="allow")
        harness.receivers.behaviours |= {"refuses": _answers(403), "fails": _answers(503)}
        harness.worker._planner._max_event = 1 << 20
        async with running(harness):
            if name == "delivery-retried":
                await harness.prove("fails")  # or its client would rest, and the delivery would wait for that
            _happen(harness, name)
            written = harness.queue.published
            await harness.until(lambda written=written, queue=queue: queue in [where for where, _ in written])  # type: ignore[misc]
            await harness.until(lambda harness=harness: bool(harness.queue.acked))  # type: ignore[misc]
        found[name] = Recorded.of(queue, [message for where, message in written if where == queue][-1])
    return found


_QUEUES = {
    "delivery-retried": "delay.2s",
    "delivery-deferred": "delay.2s",
    "delivery-probe": "delay.1s",
    "delivery-parked": PARKED,
    "event-split": "events",
    "event-of-unknown-issuer": "delay.2s",
    "event-written-down": "events",
    "event-of-many-names": "delay.2s",
    "dead-letter-refused": "dead",
    "dead-letter-malformed": "dead",
    "dead-letter-entries": "dead",
}


def _happen(harness: WorkerHarness, name: str) -> None:
    pairwise = {"client_id": "fails", "sub": "pairwise-1", "backchannel_logout_uri": "https://fails.example/other"}
    moments: dict[str, Any] = {"ended_at": "2027-01-15T07:00:00Z", "not_after": "2027-02-15T07:00:00Z"}
    match name:
        case "delivery-retried":
            harness.event(pairwise, id="e1", reason="terminated", **moments)
        case "delivery-deferred":
            harness.event("nobody", id="e2")
        case "delivery-probe":
            harness.event("fails", id="e9")
        case "delivery-parked":
            harness.event("fails", id="e9")
            harness.event("fails", id="e10")
        case "event-split":
            harness.event(*(f"c{number}" for number in range(100)), "shop", pairwise, {"client_id": 7}, id="e3")
        case "event-of-unknown-issuer":
            harness.event("shop", id="e4", iss="https://new.example")
        case "event-written-down":
            harness.worker.on_lost(Lane.EVENTS)
            harness.event("shop", delivery_count=3)
        case "event-of-many-names":
            harness.event(*(f"c{number}" for number in range(201)), pairwise, id="e7", iss="https://new.example")
        case "dead-letter-entries":
            harness.event("shop", 7, {"client_id": "fails", "sub": 1}, id="e8")
        case "dead-letter-refused":
            harness.event("refuses", id="e5", **moments)
        case _:
            harness.take(b'{"iss": "%s", "id": "e6"}' % ISS.encode(), content_type="application/json")


def _answers(status: int) -> Any:
    async def answer(_request: Request) -> TransportResult:
        return HttpResponse(status=status)

    return answer


def main() -> None:
    """Record the missing messages."""
    for name, message in asyncio.run(run_story()).items():
        if not (file := HERE / "written" / f"{name}.json").exists():
            file.write_text(message.text())


if __name__ == "__main__":
    main()
