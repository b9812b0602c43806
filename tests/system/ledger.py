"""The ledger: every confirmed (event, client) was sent, is in a queue, or is a dead letter.

It reads only the service's queues: confirmed events come from the publisher, sent ones from the clients' records, and
pending ones from the queues while no worker runs.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aio_pika

from tests.system.broker import QUEUES
from tests.system.clients import Clients

UNREADABLE = "notifier.unreadable"

Pair = tuple[str, str]
"""(event id, client_id)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A message in a queue: its body, its own properties, and the broker's."""

    queue: str
    body: bytes
    type: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The end of a run. `missing`: lost deliveries, `wrong`: unexpected dead letters, by pair and reason.

    `left`: the queue of each pending delivery. `duplicates`: requests after the accepted one, by cause.
    """

    events: int
    deliveries: int
    delivered: int
    waiting: Mapping[str, int]
    dead: Mapping[str, int]
    duplicates: Mapping[str, int]
    missing: tuple[Pair, ...]
    wrong: tuple[tuple[Pair, str], ...]
    left: tuple[tuple[Pair, str], ...] = ()

    @property
    def holds(self) -> bool:
        """Nothing was lost, and nothing given up that should not have been."""
        return not self.missing and not self.wrong and not self.waiting

    def __str__(self) -> str:
        reported = [f"{self.events} events, {self.deliveries} deliveries: {self.delivered} delivered"]
        reported += [f"{count} dead ({reason})" for reason, count in self.dead.items()]
        reported += [f"{count} waiting in {queue}" for queue, count in self.waiting.items()]
        reported += [f"{count} told again ({cause})" for cause, count in self.duplicates.items()]
        reported += [f"{len(self.missing)} LOST: {self.missing[:10]}"] if self.missing else []
        reported += [f"{len(self.wrong)} WRONG: {self.wrong[:10]}"] if self.wrong else []
        return ", ".join(reported)


def account(
    confirmed: Mapping[str, Sequence[str]],
    clients: Clients,
    queues: Iterable[Found],
    *,
    to_die: Mapping[Pair, str] | None = None,
    resent: Iterable[str] = (),
    cause: str = "redelivered",
) -> Account:
    """Return the account. Events are identified by their `sid`, which is their id; clients by their path.

    `to_die`: the deliveries that must end as dead letters, with their reason. `resent`: events that the publisher sent
    more than once; any other duplicate is counted under `cause`.
    """
    owed = {(event, client) for event, named in confirmed.items() for client in named}
    reported = {(who, path.removeprefix("/")) for path, who in clients.accepted}
    waiting: dict[Pair, str] = {}
    dead: dict[Pair, str] = {}
    for found in queues:
        for pair in _pairs(found):
            if found.queue == "dead":
                dead[pair] = str(found.headers.get("reason", "delivery_limit"))
            else:
                waiting.setdefault(pair, found.queue)
    expected, unsettled = to_die or {}, owed - reported - dead.keys()
    left = [(pair, queue) for pair, queue in sorted(waiting.items()) if pair in unsettled]
    return Account(
        events=len(confirmed),
        deliveries=len(owed),
        delivered=len(owed & reported),
        # Plain dicts: `asdict` rebuilds a Counter from its pairs, and counts those.
        waiting=dict(Counter(queue for _, queue in left)),
        dead=dict(Counter(reason for pair, reason in dead.items() if pair in owed)),
        duplicates=dict(_duplicates(owed, clients, set(resent), cause)),
        missing=tuple(sorted(owed - reported - waiting.keys() - dead.keys())),
        wrong=tuple(
            sorted(
                (pair, reason)
                for pair, reason in dead.items()
                if pair in owed and expected.get(pair) != reason and pair not in reported
            )
        ),
        left=tuple(left),
    )


def told_again(owed: set[Pair], clients: Clients) -> dict[Pair, int]:
    """Return the number of requests after the accepted one, where there were any."""
    came = Counter((hit.who, hit.path.removeprefix("/")) for hit in clients.hits)
    accepted = {(who, path.removeprefix("/")): nth for (path, who), nth in clients.accepted.items()}
    return {pair: came[pair] - nth for pair, nth in accepted.items() if pair in owed and came[pair] > nth}


def _duplicates(owed: set[Pair], clients: Clients, resent: set[str], cause: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for (event, _), again in told_again(owed, clients).items():
        found["sent again by its publisher" if event in resent else cause] += again
    return found


def _pairs(found: Found) -> Iterator[Pair]:
    """Which deliveries a message stands for: a publisher's event, a part of one, a delivery, or a dead letter.

    By `sid`: an event may come without an id, and then gets another one at each reading.
    """
    if found.type == UNREADABLE:
        return  # none with a recipient
    document = json.loads(found.body)
    for name in ("event", "delivery"):
        if isinstance(document.get(name), dict):
            document = document[name]
    event = str(document.get("sid") or document.get("event_id") or document.get("id"))
    if "client_id" in document:
        yield event, str(document["client_id"])
    else:
        for client in document.get("clients", ()):
            yield event, str(client["client_id"] if isinstance(client, dict) else client)


async def in_rabbitmq(url: str, prefix: str, queues: Sequence[str] = QUEUES) -> list[Found]:
    """Every message of every queue, looked at and given back. Only where no worker runs: what it holds is not seen."""
    found = []
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for name in queues:
            queue = await channel.get_queue(f"{prefix}.{name}", ensure=False)
            while (message := await queue.get(fail=False)) is not None:
                found.append(Found(queue=name, body=message.body, type=message.type, headers=dict(message.headers)))
    return found


def in_sqlite(path: Path) -> list[Found]:
    """Every message in the file of an embedded queue. Only where no worker runs."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT queue, body, kind, headers FROM messages").fetchall()
    return [
        Found(queue=queue, body=body, type=kind, headers=json.loads(headers)) for queue, body, kind, headers in rows
    ]
