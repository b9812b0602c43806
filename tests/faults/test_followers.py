"""Clients with two followers each: one address is killed and frozen in turn, a worker killed, two workers replaced.

The followers of `refusing` have channels. Events have a user for each session, whom a revocation names alone.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.rig import CLIENTS, PATIENCE, Rig, judge, kill, refuses
from tests.faults.test_rolling_update import replace
from tests.system.clients import Hit
from tests.system.publisher import Publisher
from tests.system.site import client
from tests.system.tcp_proxy import Ending, TcpProxy, Way
from tests.system.worker_process import worker

RATE = 20  # events a second, nine addresses each
STRUCK = "healthy-us"
EVENTS, REVOCATIONS = "refusing-us", "refusing-eu"
"""The followers with a channel of security events, and of Global Token Revocation."""


def addresses_of(name: str) -> tuple[str, str, str]:
    """Return the client and its two followers."""
    return name, f"{name}-us", f"{name}-eu"


class OwedDeliveries(dict[str, Sequence[str]]):
    """The confirmed events, each with all addresses of the clients that it names."""

    def __setitem__(self, event: str, clients: Sequence[str]) -> None:
        super().__setitem__(event, [address for name in clients for address in addresses_of(name)])


class UserPublisher(Publisher):
    """Publishes events of one user each."""

    def event(self, number: int) -> Mapping[str, Any]:
        """The user has the number of the session."""
        return {**super().event(number), "sub": str(number)}


async def judge_channels(hit: Hit) -> int:
    """Answer as in the rig, and as the receivers of channels do: one fails at times, one refuses some."""
    status = await judge(hit)
    if hit.path == f"/{EVENTS}":
        return 503 if hit.nth == 1 and int(hit.who) % 3 == 0 else 202
    if hit.path == f"/{REVOCATIONS}":
        return 403 if refuses(int(hit.who)) else 204
    return status


def options_of(name: str, leader: str, url: str) -> dict[str, Any]:
    """Return the section `notifier` of a follower at this address."""
    if name == EVENTS:
        return {"follows": leader, "channel": {"security_event": {"uri": url}}}
    if name == REVOCATIONS:
        return {"follows": leader, "channel": {"global_token_revocation": {"uri": url, "sessions": True}}}
    return {"follows": leader}


def install(made: Rig, events: int, struck_port: int) -> None:
    """Register the clients, their followers, and the struck follower at the port of its proxy."""
    made.publisher = UserPublisher(made.urls, made.prefix, CLIENTS)
    made.publisher.confirmed = OwedDeliveries()
    made.clients.judge = judge_channels
    refused = (str(number) for number in range(events) if refuses(number))
    made.expected = {(event, name): "refused" for event in refused for name in ("refusing", REVOCATIONS)}
    made.site.config["delivery"]["timeout"] = "2s"  # a frozen address
    made.site.config["shutdown_grace"] = "60s"
    made.site.write()
    rows = [client(name, made.clients.url(name)) for name in CLIENTS]
    for leader in CLIENTS:
        for name in addresses_of(leader)[1:]:
            at = f"http://127.0.0.1:{struck_port}/{name}" if name == STRUCK else made.clients.url(name)
            rows.append({"client_id": name, "issuer": rows[0]["issuer"], "backchannel_logout_uri": at,
                "notifier": options_of(name, leader, at)})  # fmt: skip
    made.site.write_clients(rows)


@pytest.mark.full
@pytest.mark.fault(
    "several addresses", "one reset and frozen, a worker killed, two replaced; two addresses have channels"
)
@pytest.mark.timeout(1800)
async def test_each_address_of_each_client_is_notified(made: Rig, form: Form[int], record: Record) -> None:
    """Each (event, address) is delivered, or is the dead letter of an address that refuses it."""
    events = form(1000, 10_000)
    async with AsyncExitStack() as stack:
        struck = await stack.enter_async_context(TcpProxy("127.0.0.1", made.clients.port))
        install(made, events, struck.port)
        running = [await stack.enter_async_context(worker(made.site)) for _ in range(2)]
        publishing = asyncio.create_task(made.publisher.publish(range(events), rate=RATE))
        await made.more(events // 2)
        struck.refuse()
        struck.end(Ending.RESET)
        await made.more(events)
        await kill(running.pop())
        running.append(await stack.enter_async_context(worker(made.site)))
        await struck.accept()
        await made.more(events)
        struck.stall(*Way)
        await made.more(events)
        for _ in range(2):
            new = await stack.enter_async_context(worker(made.site))
            old, *running = [*running, new]
            await replace(old, running)
        struck.flow()
        await publishing
        await made.settle(*running, patience=2 * PATIENCE)
        account = await made.account(cause="killed, frozen or replaced")
        assert (account.events, account.deliveries) == (events, 9 * events)
        record(account)
        audiences = {hit.path.removeprefix("/"): hit.claims["aud"] for hit in made.clients.hits}
        own = {name: made.clients.url(name) for name in (EVENTS, REVOCATIONS)}
        assert audiences == {address: name for name in CLIENTS for address in addresses_of(name)} | own
        assert {hit.claims["client_id"] for hit in made.clients.at(REVOCATIONS)} == {"refusing"}
