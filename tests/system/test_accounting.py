"""A thousand events for three clients of two issuers: at the end every delivery is accounted for exactly."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.system.broker import broker
from tests.system.clients import Clients, Hit, verify_all
from tests.system.site import ISSUER, OTHER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

pytestmark = pytest.mark.full


def judge(hit: Hit) -> int:
    """One healthy client, one that fails twice an event, one that refuses."""
    match hit.path:
        case "/flaky":
            return 503 if hit.nth < attempts(hit.who) else 200
        case "/refusing":
            return 403
        case _:
            return 200


def attempts(session: str) -> int:
    """How often the flaky client is told of this session: every fifth fails twice."""
    return 3 if int(session.removeprefix("session-")) % 5 == 1 else 1


def register(site: Site, clients: Clients) -> None:
    """The same three clients at both issuers."""
    both: list[str] = [ISSUER, OTHER]
    site.write_clients(
        [{**client(name, clients.url(name)), "issuer": both} for name in ("healthy", "flaky", "refusing")]
    )


def event(number: int, **more: object) -> dict[str, object]:
    """Events of the two issuers by turns; each pair shares its id and its session."""
    return {
        "id": f"event-{number // 2}",
        "iss": (ISSUER, OTHER)[number % 2],
        "sub": "alice",
        "sid": f"session-{number // 2}",
        "clients": ["healthy", "flaky", "refusing"],
        **more,
    }


def account(clients: Clients, site: Site, events: int) -> None:
    """What came to the sockets is what had to come, each once (flaky: some three times), by valid and fresh tokens."""
    sessions = [(iss, f"session-{number}") for number in range(events // 2) for iss in (ISSUER, OTHER)]
    for name in ("healthy", "flaky", "refusing"):
        came = Counter((hit.claims["iss"], hit.claims["sid"]) for hit in clients.at(name))
        assert came == {key: attempts(key[1]) if name == "flaky" else 1 for key in sessions}, name
    verify_all(clients.hits, site.jwks)


async def counted(running: WorkerProcess, events: int) -> None:
    """The metrics tell the same story."""
    assert await running.metric("events_total", result="accepted") == events
    fates = {"healthy": "delivered", "flaky": "delivered", "refusing": "dead"}
    for iss in (ISSUER, OTHER):
        for name, fate in fates.items():
            settled = await running.metric("deliveries_settled_total", iss=iss, client_id=name, fate=fate)
            assert settled == events // 2, (iss, name)
        assert await running.metric("retries_scheduled_total", iss=iss, client_id="flaky") == events / 5
        assert await running.metric("dead_letters_total", iss=iss, client_id="refusing", reason="refused") == events / 2
    assert await running.metric("deliveries_settled_total") == 3 * events


@pytest.mark.timeout(200)
async def test_every_delivery_of_a_thousand_events_is_accounted_for(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """1,000 events × 3 clients over two issuers: one healthy, one failing now and then, one refusing (R2, R12).

    Every delivery has one fate, every token is valid and its `jti` new, all queues are empty but the dead letters,
    which hold exactly the refused. And once the clients hang up, the worker has no more sockets open than before.
    """
    events = 1000
    async with Clients(judge) as clients, broker(amqp_url, prefix) as rabbit:
        site = Site(tmp_path, amqp_url, prefix)
        register(site, clients)
        async with worker(site) as running:
            before = await running.descriptors()
            await rabbit.publish_all(event(number) for number in range(events))
            await clients.until(lambda: len(clients.hits) >= 3.4 * events, patience=140)
            await rabbit.until_depths({"dead": events})
            await counted(running, events)
            await clients.close()
            await until(running.descriptors, lambda number: number <= before + 8)
            assert await running.stop() == 0
        account(clients, site, events)
        await rabbit.until_depths({"dead": events})
        letters = await rabbit.dead_letters()
    named = Counter((letter.headers["iss"], letter.headers["event_id"]) for letter in letters)
    assert named == {(iss, f"event-{number}"): 1 for number in range(events // 2) for iss in (ISSUER, OTHER)}
    for letter in letters:
        assert (letter.headers["reason"], letter.headers["client_id"]) == ("refused", "refusing")
        assert [past["status"] for past in json.loads(letter.body)["delivery"]["history"]] == [403]


async def test_the_embedded_queue_accounts_for_every_delivery_too(tmp_path: Path) -> None:
    """100 events × 3 clients on SQLite, published over HTTP."""
    events = 100
    async with Clients(judge) as clients:
        site = Site(tmp_path, "sqlite:queue.db")
        register(site, clients)
        async with worker(site) as running:
            for number in range(events):
                status, answer = await running.post(event(number))
                assert (status, answer["id"]) == (202, f"event-{number // 2}")
            await clients.until(lambda: len(clients.hits) >= 3.4 * events)
            await running.until_metric(events, "dead_letters_total", reason="refused")
            await running.until_metric(2 * events, "deliveries_settled_total", fate="delivered")
            await counted(running, events)
            assert await running.stop() == 0
        account(clients, site, events)
