"""A publisher that may write to the two exchanges and nothing else forges messages of notifier's own.

Each forgery is copied from a real message of the queues, and names a user of another issuer for logout, in
the name of a publisher that may speak for it. It expires unread, so that the broker moves it by the default exchange.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from tests.faults.conftest import Record
from tests.faults.rig import CLIENTS, Rig, rig
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system import ledger
from tests.system.broker import Broker, broker
from tests.system.command import notifier_at
from tests.system.site import OTHER, client
from tests.system.waiting import until
from tests.system.worker_process import worker

USER, PASSWORD = "forger", "a-password"
EXCHANGES = ("events", "bulk")
EVENTS = 30
UNKNOWN = "https://unknown.example.com"
PATIENCE = 120.0


def x_deaths(prefix: str, lane: str) -> Iterator[object]:
    """The values of `x-death` that a publisher may write: as a broker writes them, and as none does."""
    one = {"queue": f"{prefix}.{lane}", "reason": "expired", "exchange": "", "count": 1, "routing-keys": ["any"]}
    queues = ("events", "bulk", "retries", "delay.1s", "delay.8s")
    yield [one]
    yield [one | {"queue": f"{prefix}.{name}", "reason": why} for name in queues for why in ("expired", "rejected")]
    yield [one | {"queue": f"{prefix}.delay.1s"}]
    yield [{name: value for name, value in one.items() if name != "exchange"}]
    yield one
    yield "expired"
    yield 1
    yield []
    yield None


def rewritten(content: object, sid: str) -> object:
    """Rewrite the document: due now, for this session at the other issuer, by a publisher that may speak for it."""
    reported: dict[str, object] = {"iss": OTHER, "client_id": "victim", "sid": sid, "publisher": "guest"}
    reported["clients"] = [{"client_id": "victim"}]
    if isinstance(content, dict):
        kept = content.keys() - {"schedule", "unknown_since", "first_attempt_at"}
        return {name: reported.get(name) or rewritten(content[name], sid) for name in content if name in kept}
    return [rewritten(value, sid) for value in content] if isinstance(content, list) else content


class Forger:
    """The publisher. `templates`: the type of each real message, and its document."""

    def __init__(self, rabbit: Broker, templates: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        self._rabbit = rabbit
        self._templates = templates
        self.count = 0

    async def forge(self, *, expiration: float) -> None:
        """Publish every kind through both exchanges with every form of `x-death`. `expiration` is in seconds."""
        for exchange in EXCHANGES:
            for death in x_deaths(self._rabbit.prefix, exchange):
                for type_, content in self._templates:
                    self.count += 1
                    headers: dict[str, Any] = {} if death is None else {"x-death": death}
                    headers |= {
                        "x-first-death-exchange": "",
                        "x-first-death-queue": f"{self._rabbit.prefix}.delay.1s",
                        "x-first-death-reason": "expired",
                    }
                    await self._rabbit.publish(
                        json.dumps(rewritten(content, f"forged-{self.count}")).encode(),
                        exchange=exchange,
                        headers=headers,
                        type=type_,
                        user_id=USER,
                        message_id=f"forged-{self.count}",
                        expiration=expiration,
                    )


def templates(found: Sequence[ledger.Found]) -> list[tuple[str, Mapping[str, Any]]]:
    """One real message of each kind: a delivery, an event on its way, letters that hold the one and the other."""
    documents: dict[tuple[str, str], Mapping[str, Any]] = {}
    for each in found:
        content = json.loads(each.body)
        holds = next((name for name in ("delivery", "event") if name in content), None)
        if holds is not None:
            type_ = "notifier.dead-letter" if each.queue == "dead" else f"notifier.{holds}"
            documents[type_, holds] = content
    assert len(documents) == 4
    return [(type_, content) for (type_, _), content in documents.items()]


async def replay(made: Rig, *reasons: str) -> Mapping[str, Any]:
    """Look at some dead letters and replay all, as an operator does."""
    options = [word for reason in reasons for word in ("--reason", reason)]

    async def reported(*words: str) -> str:
        return (await notifier_at(made.site, "dead-letters", *words)).stdout

    dead_letters = [json.loads(line) for line in (await reported("list", "--json", *options)).splitlines()]
    shown = [await reported("show", dead_letter["id"]) for dead_letter in dead_letters[:: len(dead_letters) // 5]]
    replayed = json.loads(await reported("replay", "--json", *options))
    return {"letters": len(dead_letters), "shown": shown, **replayed}


@pytest.mark.fault("publisher", "forges deliveries, parts of events and dead letters of ours, which expire unread")
@pytest.mark.timeout(600)
async def test_no_forgery_is_accepted_as_our_message(
    tmp_path: Path, own_node: RabbitmqNode, queues: str, record: Record
) -> None:
    """No client receives a forgery, a replay sends none, and everything else is delivered."""
    async with rig(tmp_path, own_node.url, queues) as made:
        made.site.config["issuers"][OTHER]["publishers"] = ["guest"]
        made.site.config["registry"]["grace"] = "1h"
        made.site.config["delivery"]["retry"] = {"base": "16s", "max_delay": "16s"}
        made.site.write()
        victim = client("victim", made.clients.url("victim"), OTHER)
        made.site.write_clients([*json.loads((tmp_path / "clients.yaml").read_text()), victim])
        own_node.ctl("add_user", USER, PASSWORD)
        own_node.ctl("set_permissions", USER, "^$", rf"^{queues}\.(events|bulk)$", "^$")
        url = str(URL(own_node.url).with_user(USER).with_password(PASSWORD))
        async with broker(own_node.url, queues) as rabbit, worker(made.site) as first:
            await made.publisher.publish(range(EVENTS), rate=500)
            await rabbit.publish({"iss": UNKNOWN, "sid": "s", "clients": ["victim"]}, user_id="guest")
            await first.until_metric(1.0, "deferrals_total", cause="unknown")
            await made.clients.until(lambda: len(made.clients.hits) >= len(CLIENTS) * EVENTS)
            async with broker(url, queues) as theirs:
                await theirs.publish({"iss": OTHER, "sid": "forged", "clients": ["victim"]}, user_id=USER)
                await rabbit.until_dead(len(made.to_die) + 1)
                assert await first.stop() == 0
                forger = Forger(theirs, templates(await ledger.in_rabbitmq(own_node.url, queues)))
                await forger.forge(expiration=0.5)
                honest = len(made.to_die) + 1
                await until(
                    lambda: rabbit.depths(["dead"]), lambda found: found["dead"] == honest + forger.count, PATIENCE
                )
                async with worker(made.site) as second:
                    await made.publisher.publish(range(EVENTS, 2 * EVENTS), rate=500)
                    await forger.forge(expiration=0.001)  # some expire, some are read
                    dead = len(made.to_die) + 1 + forger.count
                    await until(lambda: rabbit.depths(["dead"]), lambda found: found["dead"] == dead, PATIENCE)
                    replayed = await replay(made, "delivery_limit", "malformed_event")
                    await made.publisher.publish(range(2 * EVENTS, 3 * EVENTS), rate=500)
                    await made.settle(second)
        print(f"{forger.count} forgeries, of which {replayed['replayed']} were replayed")  # noqa: T201  as the account is
        assert [hit.who for hit in made.clients.hits if hit.who.startswith("forged")] == []
        assert replayed["letters"] == forger.count
        assert replayed["replayed"] == 0
        assert sum(replayed["kept"].values()) == forger.count
        assert all("notifier publish" in text for text in replayed["shown"])
        record(await made.account(), times=forger.count)
