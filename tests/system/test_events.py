"""Events of publishers and their results: identity, CloudEvents, malformed input, tenants, the API."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.broker import Broker, broker
from tests.system.clients import Clients, verify_all
from tests.system.site import ISSUER, OTHER, Site, client
from tests.system.worker_process import WorkerProcess, worker


def register(site: Site, clients: Clients) -> None:
    """`shop` at both issuers, `mail` at the first alone, `other` at the second alone."""
    site.write_clients(
        [
            {**client("shop", clients.url("shop")), "issuer": [ISSUER, OTHER]},
            client("mail", clients.url("mail")),
            client("other", clients.url("other"), OTHER),
        ]
    )


@asynccontextmanager
async def serving(folder: Path, url: str, prefix: str) -> AsyncIterator[tuple[Clients, Broker, WorkerProcess]]:
    """These clients, a publisher and a worker; at the end, every token that came was valid."""
    async with Clients() as clients, broker(url, prefix) as rabbit:
        site = Site(folder, url, prefix)
        register(site, clients)
        async with worker(site) as running:
            yield clients, rabbit, running
        verify_all(clients.hits, site.jwks)


def event(sid: str, **more: object) -> dict[str, object]:
    """One session of alice's, at `shop`."""
    return {"iss": ISSUER, "sub": "alice", "sid": sid, "clients": ["shop"], **more}


# ── identity ──


# ── CloudEvents ──


def attributes(mark: str, number: int) -> dict[str, str]:
    """The required context attributes of binary mode."""
    values = {"specversion": "1.0", "type": "com.example.ended", "source": "/idp", "id": f"ce-{number}"}
    return {f"{mark}{name}": value for name, value in values.items()}


async def test_cloudevents_arrive_in_both_modes_over_amqp_and_http(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """Structured and binary, over AMQP (both spellings of the headers) and HTTP; a resend is known by source and id."""
    structured = {**attributes("", 1), "datacontenttype": "application/json", "data": event("s1")}
    kind = "application/cloudevents+json; charset=utf-8"
    async with serving(tmp_path, amqp_url, prefix) as (clients, rabbit, running):
        for _ in range(2):
            await rabbit.publish(structured, content_type=kind)
        await rabbit.publish(event("s2"), headers=dict(attributes("cloudEvents_", 2)))
        await rabbit.publish(event("s3"), headers=dict(attributes("cloudEvents:", 3)))
        web = {**attributes("", 4), "data": event("s4")}
        assert await running.post(web, headers={"Content-Type": kind}) == (202, {"id": "ce-4"})
        assert await running.post(event("s5"), headers=attributes("ce-", 5)) == (202, {"id": "ce-5"})
        await clients.until_notified("shop", [f"s{number}" for number in range(1, 6)])
        await running.until_metric(1, "events_total", result="duplicate")
        assert sorted(clients.notified("shop")) == ["s1", "s2", "s3", "s4", "s5"]


# ── malformed ──

WRONG: dict[str, bytes] = {
    "empty": b"",
    "not UTF-8": b'{"iss": "\xff\xfe"}',
    "not JSON": b"hello",
    "nested": b'{"iss":' + b"[" * 60_000 + b"]" * 60_000 + b"}",
    "oversized": json.dumps({**event("s0"), "padding": "x" * 200 * 1024}).encode(),
    "an array": b"[1, 2]",
    "no clients": json.dumps({"id": "named", "iss": ISSUER, "sub": "alice", "clients": []}).encode(),
}


async def test_malformed_events_dead_letter(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """Whatever arrives, the worker keeps running, and any RabbitMQ tool shows the error."""
    async with serving(tmp_path, amqp_url, prefix) as (clients, rabbit, running):
        for body in WRONG.values():
            await rabbit.publish(body)
        await rabbit.publish(event("s1"), content_type="text/plain")
        await rabbit.publish(event("s2"), headers={"deep": _deep(200)})
        await clients.until_notified("shop", ["s2"])
        dead_letters = await rabbit.until_dead(len(WRONG))
        await running.until_metric(len(WRONG), "events_total", result="malformed")
        assert running.logged("unexpected") == []
        assert await running.stop() == 0
    assert len(dead_letters) == len(WRONG)
    for dead_letter in dead_letters:
        assert set(dead_letter.headers) >= {"reason", "client_id", "iss", "event_id"}
        assert dead_letter.headers["reason"] == "malformed_event"
        assert json.loads(str(dead_letter.headers["letter"]))["mistakes"]
    assert {dead_letter.body for dead_letter in dead_letters} == {body[: 128 * 1024] for body in WRONG.values()}
    raws = [json.loads(str(dead_letter.headers["letter"]))["raw"] for dead_letter in dead_letters]
    assert {raw["size"] for raw in raws} == {len(body) for body in WRONG.values()}
    assert [raw["size"] for raw in raws if raw.get("truncated")] == [len(WRONG["oversized"])]
    assert ("named", ISSUER) in {
        (dead_letter.headers["event_id"], dead_letter.headers["iss"]) for dead_letter in dead_letters
    }


def _deep(levels: int) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = {"in": value}
    return value


# ── who may speak ──


@pytest.mark.full
async def test_only_listed_publishers_may_name_an_issuer(
    tmp_path: Path, rabbitmq: RabbitmqNode | None, own_vhost: str, amqp_url: str, prefix: str
) -> None:
    """AMQP `user_id`, which the broker checks, decides; without one, or with another's, the event is dead."""
    if rabbitmq is None:
        pytest.skip("users can only be made on a node of our own")
    user = f"idp-of-{prefix}"
    await asyncio.to_thread(rabbitmq.ctl, "add_user", user, "idp-password")
    await asyncio.to_thread(rabbitmq.ctl, "set_permissions", "-p", own_vhost, user, ".*", ".*", ".*")
    idp_url = amqp_url.replace("guest:guest", f"{user}:idp-password")
    async with Clients() as clients:
        site = Site(tmp_path, amqp_url, prefix)
        site.config["issuers"][ISSUER]["publishers"] = [user]
        site.write()
        register(site, clients)
        async with (
            worker(site) as running,
            broker(amqp_url, prefix) as guest,
            broker(idp_url, prefix) as idp,
        ):
            await guest.publish(event("none", id="none"))
            await guest.publish(event("app", id="app"), app_id=user)
            await guest.publish(event("guest", id="guest"), user_id="guest")
            await idp.publish(event("idp", id="idp"), user_id=user)
            await guest.publish(event("other", id="other", iss=OTHER), user_id="guest")
            await clients.until_notified("shop", ["idp", "other"])
            dead_letters = await guest.until_dead(3)
            assert await running.stop() == 0
        assert sorted(clients.notified("shop")) == ["idp", "other"]
    assert {dead_letter.headers["reason"] for dead_letter in dead_letters} == {"publisher_not_allowed"}
    assert {
        dead_letter.headers["event_id"]: json.loads(dead_letter.body).get("publisher") for dead_letter in dead_letters
    } == {
        "none": None,
        "app": None,
        "guest": "guest",
    }
