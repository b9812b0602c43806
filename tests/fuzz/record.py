"""Records the samples: what a real worker on a real RabbitMQ is given, and what it writes into the queues.

    python -m tests.fuzz.record

One worker, a client that takes everything, one that is down and one that refuses; then every queue is read out.
A sample is a body as it stood in the queue; its name begins with its kind, `publisher` for what others wrote.
"""

import asyncio
import json
import tempfile
from pathlib import Path

from tests.fuzz.mutation import SAMPLES
from tests.rabbitmq_node import rabbitmq_node
from tests.system.broker import broker
from tests.system.clients import Clients, Hit
from tests.system.ledger import in_rabbitmq
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker

TOLD = ["healthy", "down", "refusing", "nobody"]
EVENTS: tuple[dict[str, object], ...] = (
    {"id": "e-1", "iss": ISSUER, "sub": "alice", "sid": "s-1", "clients": TOLD, "reason": "user_logout"},
    {"iss": ISSUER, "sub": "alice", "clients": ["healthy", {"client_id": "down", "sub": "p"}, 7, {"client_id": ""}]},
    {"id": "e-2", "iss": ISSUER, "sid": "s-2", "clients": ["down"], "ended_at": "2026-01-31T12:00:00Z",
     "not_after": "2099-01-31T12:00:00+01:00"},
    {"id": "e-3", "iss": "https://nobody.example.com", "sid": "s-3", "clients": "*"},
    {"id": "e-4", "iss": ISSUER, "sid": "s-4", "clients": []},
    {"specversion": "1.0", "id": "c-1", "source": "/idp", "type": "session.ended", "time": "2026-01-31T12:00:00Z",
     "data": {"iss": ISSUER, "sub": "alice", "sid": "s-5", "clients": ["down", {"client_id": "inline",
      "backchannel_logout_uri": "http://127.0.0.1:1/out?a=b", "id_token_signed_response_alg": "ES256"}]}},
)  # fmt: skip


def judge(hit: Hit) -> int:
    """What the clients answer."""
    return {"/down": 503, "/refusing": 403}.get(hit.path, 200)


async def record(folder: Path, url: str) -> dict[str, bytes]:
    """The samples by their names."""
    found: dict[str, bytes] = {f"publisher-{n}": json.dumps(event).encode() for n, event in enumerate(EVENTS)}
    async with Clients(judge) as clients:
        site = Site(folder, url)
        site.config["delivery"]["retry"] = {"base": "60s", "factor": 1, "jitter": 0}
        site.config["registry"] |= {"grace": "60s", "inline": "allow"}
        site.write()
        site.write_clients([client(name, clients.url(name)) for name in TOLD[:-1]])
        async with worker(site) as running:
            async with broker(url, site.prefix) as rabbit:
                for event in EVENTS:
                    await rabbit.publish(event)
                await running.until_metric(0, "queue_messages", queue="events")
                await clients.until(lambda: len(clients.hits) >= 6)
                await rabbit.until_dead(4)
            assert await running.stop() == 0
    for message in await in_rabbitmq(url, site.prefix):
        kind = (message.type or "publisher").removeprefix("notifier.")
        found[f"{kind}-{sum(key.startswith(kind) for key in found)}"] = message.body
    return found


def main() -> None:
    """Write the samples anew."""
    with tempfile.TemporaryDirectory() as folder, rabbitmq_node() as node:
        samples = asyncio.run(record(Path(folder), node.url))
    SAMPLES.mkdir(exist_ok=True)
    for old in SAMPLES.glob("*.json"):
        old.unlink()
    for name, body in samples.items():
        (SAMPLES / f"{name}.json").write_bytes(body)


if __name__ == "__main__":
    main()
