"""Queues of sources: what reaches them through exchanges of others, as what it comes, and what binds them.

The exchanges are made as others make them: MassTransit's as durable fanouts, with a child for a derived type.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
from pamqp import commands
from structlog.testing import capture_logs

from notifier.features.sources.source_compiler import OWN_EXCHANGES
from notifier.model.message import DEAD, Binding, Lane, Message
from notifier.queues.passes import ReadMessage
from notifier.queues.rabbitmq import source_bindings
from notifier.queues.rabbitmq.administration import declare_topology, delete_topology, survey_bindings, survey_topology
from notifier.queues.rabbitmq.examination import examine_broker
from notifier.queues.rabbitmq.queue import RabbitQueue
from notifier.queues.rabbitmq.topology import topology_of
from tests.contract.broker import Administrator, OpenWorker
from tests.contract.queues import Inbox, ready
from tests.support.rabbit_options import rabbit_options
from tests.system.waiting import until

GENERIC = "Shop.Messages:Envelope`1[[Duende.IdentityServer.Models.LogoutNotificationContext]]" + 60 * "x"


class AnyName:
    """Of a command: pamqp lets every name through, and the broker judges."""

    def validate(self) -> None:
        """Say nothing."""


class Declare(AnyName, commands.Exchange.Declare):
    """As a client for .NET does it."""


class Delete(AnyName, commands.Exchange.Delete):
    """The same."""


class Others:
    """The servers that own the exchanges of sources. The test deletes the exchanges."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel, prefix: str) -> None:
        self.channel = channel
        self._prefix = prefix
        self._made: list[aio_pika.abc.AbstractExchange] = []

    def named(self, name: str) -> str:
        """The name of an exchange, in this test alone."""
        return f"theirs-{self._prefix}:{name}"

    async def exchange(self, name: str, type_: str = "fanout", **arguments: Any) -> aio_pika.abc.AbstractExchange:
        """Declare an exchange, as its server does."""
        made = await self.channel.declare_exchange(self.named(name), type_, durable=True, arguments=arguments)
        self._made.append(made)
        return made

    async def publish(self, exchange: str, body: bytes, key: str = "", **properties: Any) -> None:
        """Publish to one of their exchanges; `""` is the default exchange."""
        where = self.channel.default_exchange
        if exchange:
            where = await self.channel.get_exchange(self.named(exchange), ensure=False)
        await where.publish(aio_pika.Message(body, delivery_mode=2, **properties), key)

    async def leave(self) -> None:
        """Delete the declared objects."""
        for made in self._made:
            await self.channel.exchange_delete(made.name)


@pytest.fixture
async def others(administrator: Administrator, bare_prefix: str) -> AsyncIterator[Others]:
    """Others on the same broker."""
    made = Others(administrator, bare_prefix)
    yield made
    await made.leave()


@pytest.fixture
async def at_work(
    amqp_url: str, bare_prefix: str, others: Others, worker: OpenWorker, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[RabbitQueue, Inbox]]:
    """A queue with three sources that is consumed. `duende` is bound to an exchange that is not there yet."""
    monkeypatch.setattr(source_bindings, "FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(source_bindings, "BIND_INTERVAL_SECONDS", 0.4)
    theirs = (("duende", "context", "#"), ("kc", "topic", "KK.*.LOGOUT"), ("twin", "topic", "KK.#"))
    bindings = tuple(
        Binding(source=source, exchange=others.named(name), routing_key=key) for source, name, key in theirs
    )
    await others.exchange("topic", "topic")
    inbox = Inbox()
    queue = await worker(inbox, prefix=bare_prefix, bindings=bindings)
    yield queue, inbox
    await queue.close()
    await delete_topology(rabbit_options(amqp_url, bare_prefix, bindings=bindings))


async def bound(queue: RabbitQueue) -> None:
    """Wait until every binding is made."""
    await until(lambda: _states(queue), lambda problems: not any(problems))


async def _states(queue: RabbitQueue) -> list[str]:
    return [each.problem for each in queue.status().bindings]


def logged(message: Message) -> tuple[Lane, str | None, object, bytes]:
    """Return the members that name the source."""
    return message.lane, message.source, message.kind, message.body


async def test_exchange_declared_later_is_bound(at_work: tuple[RabbitQueue, Inbox], others: Others) -> None:
    """It blocks nothing else; it is logged once with the remedy, and bound soon after it exists."""
    queue, inbox = at_work
    await until(lambda: _states(queue), any)
    with capture_logs() as logs:
        assert queue.status().consuming
        assert queue.status().problem is None
        (state,) = (each for each in queue.status().bindings if each.problem)
        assert state.binding.exchange == others.named("context")
        assert "does not exist" in str(state)
        assert "durable fanout" in state.advice
        await asyncio.sleep(0.5)  # it is tried meanwhile
        await others.exchange("context")
        await bound(queue)
    reported = [(each["event"], each["source"]) for each in logs if each["event"].startswith("source_")]
    assert reported == [("source_bound", "duende")]
    await others.publish("context", b"late")
    assert logged(await inbox.next()) == (Lane.EVENTS, "duende", None, b"late")
    await queue.close()


async def test_queue_determines_the_source(at_work: tuple[RabbitQueue, Inbox], others: Others) -> None:
    """Through a child exchange, an alternate one, and one topic that two sources bind: each once, with its source."""
    queue, inbox = at_work
    parent = await others.exchange("context")
    child = await others.exchange("child")
    await parent.bind(child)
    await others.exchange("front", "direct", **{"alternate-exchange": parent.name})
    await bound(queue)
    await others.publish("child", b"derived")
    await others.publish("front", b"unroutable", "nowhere")
    assert {logged(each)[1:] for each in await inbox.some(2)} == {
        ("duende", None, b"derived"),
        ("duende", None, b"unroutable"),
    }
    await others.publish("topic", b"both", "KK.demo.LOGOUT")
    await others.publish("topic", b"one", "KK.demo.LOGIN")
    came = sorted(((message.source, message.body) for message in await inbox.some(3)), key=str)
    assert came == [("kc", b"both"), ("twin", b"both"), ("twin", b"one")]
    assert inbox.empty()


async def test_forged_headers_do_not_change_the_source(
    at_work: tuple[RabbitQueue, Inbox], others: Others, bare_prefix: str
) -> None:
    """Whatever its headers and `type`, it belongs to that source; published past all exchanges it is marked, also when
    redelivered.
    """
    queue, inbox = at_work
    await others.exchange("context")
    await bound(queue)
    forged = {
        "x-first-death-queue": f"{bare_prefix}.source.kc",
        "x-first-death-exchange": "",
        "x-first-death-reason": "expired",
        "source": "kc",
        "x-death": [{"queue": f"{bare_prefix}.delay.1s", "reason": "expired", "exchange": "", "count": 1}],
    }
    await others.publish("context", b"forged", type="notifier.event", headers=forged)
    message = await inbox.next()
    assert (logged(message), message.unrouted) == ((Lane.EVENTS, "duende", None, b"forged"), False)
    own = f"{bare_prefix}.source.duende"
    await others.publish("", b"past", own, type="notifier.sourced", headers=forged)
    message = await inbox.next()
    assert (logged(message), message.unrouted) == ((Lane.EVENTS, "duende", None, b"past"), True)


async def test_losing_one_source_queue_affects_no_other(
    at_work: tuple[RabbitQueue, Inbox], others: Others, amqp_url: str, bare_prefix: str
) -> None:
    """A source's queue that is deleted comes back with its bindings; only that source's messages are forgotten."""
    queue, inbox = at_work
    await others.exchange("context")
    await bound(queue)
    await others.channel.queue_delete(f"{bare_prefix}.source.kc")
    await until(lambda: _value(inbox.lost_sources), lambda lost: lost == ["kc"])
    assert inbox.lost_lanes == []

    async def arrives() -> bool:
        await others.publish("topic", b"again", "KK.demo.LOGOUT", message_id="again")
        came = await inbox.some(1)
        while not inbox.empty():
            came.append(await inbox.next())
        return any(each.source == "kc" for each in came)

    await until(arrives, bool)
    await others.channel.queue_delete(f"{bare_prefix}.events")
    await until(lambda: _value(inbox.lost_lanes), lambda lost: lost == [Lane.EVENTS])
    assert inbox.lost_sources == ["kc"]


async def _value(value: Any) -> Any:
    return value


async def test_deleted_exchange_is_bound_again(at_work: tuple[RabbitQueue, Inbox], others: Others) -> None:
    """An exchange that is deleted and created again is bound again, without a notification from the broker."""
    queue, inbox = at_work
    made = await others.exchange("context")
    await bound(queue)
    await others.channel.exchange_delete(made.name)
    await until(lambda: _states(queue), any)
    await others.exchange("context")
    await bound(queue)
    await others.publish("context", b"anew")
    assert (await inbox.next()).body == b"anew"


@pytest.mark.full
async def test_topology_includes_source_queues(
    amqp_url: str, bare_prefix: str, others: Others, worker: OpenWorker
) -> None:
    """Declared, surveyed, counted and deleted like `events`; exchanges of others are looked at and left alone."""
    bindings = (
        Binding(source="duende", exchange=others.named("context")),
        Binding(source="duende", exchange=GENERIC),
        Binding(source="kc", exchange=others.named("missing"), routing_key="KK.#"),
    )
    options = rabbit_options(amqp_url, bare_prefix, bindings=bindings)
    exchanges = {each.name for each in topology_of(options).exchanges}
    assert exchanges == {f"{bare_prefix}.{name}" for name in OWN_EXCHANGES}
    await others.exchange("context")
    underlay: Any = await others.channel.get_underlay_channel()
    await underlay.rpc(Declare(exchange=GENERIC, exchange_type="fanout"))
    problems = ["", "", "it does not exist"]
    assert [each.problem for each in await declare_topology(options)] == problems
    by_name = {each.name: each for each in await survey_topology(options)}
    assert by_name[f"{bare_prefix}.source.duende"].arguments == by_name[f"{bare_prefix}.retries"].arguments
    await others.publish("context", b"{}")
    await ready(await worker(prefix=bare_prefix, bindings=bindings), "source.duende", 1)
    assert [each.problem for each in await survey_bindings(options)] == problems
    state = await examine_broker(options)
    assert [each.problem for each in state.bindings] == problems
    assert state.missing == ()
    lost = await delete_topology(options)
    assert lost[f"{bare_prefix}.source.duende"] == 1
    assert [each.problem for each in await survey_bindings(options)] == problems  # theirs are left alone
    await underlay.rpc(Delete(exchange=GENERIC))


def _see(message: Message) -> ReadMessage[object]:
    return ReadMessage(message=message, summary=None)


async def test_expired_message_is_a_dead_letter_of_its_source(
    amqp_url: str, bare_prefix: str, others: Others, worker: OpenWorker
) -> None:
    """A context that expired unread is a dead letter of its source, whatever its publisher made up."""
    binding = Binding(source="duende", exchange=others.named("context"))
    options = rabbit_options(amqp_url, bare_prefix, bindings=(binding,))
    await others.exchange("context")
    await declare_topology(options)
    forged = [{"queue": f"{bare_prefix}.source.kc", "reason": "expired", "exchange": "", "count": 3}]
    headers: Any = {"x-first-death-queue": f"{bare_prefix}.source.kc", "x-death": forged}
    await others.publish("context", b"{}", expiration=0.05, headers=headers)
    queue = await worker(prefix=bare_prefix, bindings=(binding,))
    await ready(queue, DEAD, 1)
    async with queue.dead_letters().open_pass(_see) as queue_pass:
        (found,) = await queue_pass.next_page()
    assert (found.message.source, found.message.kind, found.message.unrouted) == ("duende", None, False)
