"""Binds the queues of sources to exchanges of other services, and keeps them bound.

Such an exchange may be created later: MassTransit creates it at its first publication. It may be deleted at any time,
which silently deletes the binding. AMQP cannot query a binding, but binding again changes nothing. So all bindings are
renewed every 30 s, and a refused binding sooner at first. A refusal closes the channel, so each attempt has its own
channel. A missing binding stops nothing else.
"""

import asyncio
import re
import secrets

import structlog
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity
from pamqp import base, commands

from notifier.model.errors import QueueUnavailable
from notifier.model.message import SOURCE, Binding, BindingState
from notifier.model.record import copy_record
from notifier.queues.rabbitmq.connection import (
    CONNECTION_ERRORS,
    Connection,
    broker_timeout,
    channel_of,
    is_cancelled,
    reason_of,
    underlay_of,
)
from notifier.queues.rabbitmq.options import RabbitOptions

BIND_INTERVAL_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 1.0

_REFUSED_USER = re.compile(r"refused for user '([^']*)'")
_MISSING_QUEUE = re.compile(r"no queue '")


class SourceBindings:
    """Maintains the bindings over the current connection. `states` has them, with the reason if one is missing.

    Set `bind_soon` to renew all bindings at once, after a queue was declared again.
    """

    def __init__(self, options: RabbitOptions) -> None:
        self._options = options
        self._states = {binding: BindingState(binding=binding) for binding in options.bindings}
        self._logged: set[Binding] = set()
        self._log = structlog.get_logger(__name__)
        self.bind_soon = asyncio.Event()

    @property
    def states(self) -> tuple[BindingState, ...]:
        """Return each binding, with the reason if it is missing."""
        return tuple(self._states.values())

    async def run(self, connection: Connection) -> None:
        """Renew the bindings over this connection, until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while self._options.bindings and not is_cancelled():
            self.bind_soon.clear()
            before = dict(self._states)
            states = await bind_all(connection, self._options)
            if underlay_of(connection).is_closed:
                return  # a closed connection proves nothing about a binding
            for state in states:
                self._log_change(state)
            missing = any(state.problem for state in self._states.values())
            if self._states != before:  # an operator may be repairing it
                pause = FIRST_PAUSE_SECONDS
            try:
                async with asyncio.timeout(pause if missing else BIND_INTERVAL_SECONDS):
                    await self.bind_soon.wait()
                pause = FIRST_PAUSE_SECONDS
            except TimeoutError:
                pause = min(2 * pause, BIND_INTERVAL_SECONDS) if missing else FIRST_PAUSE_SECONDS

    def _log_change(self, state: BindingState) -> None:
        binding, before = state.binding, self._states[state.binding]
        log = self._log.bind(source=binding.source, exchange=binding.exchange, routing_key=binding.routing_key)
        if not state.problem and (before.problem or binding not in self._logged):
            log.info("source_bound")
        elif state.problem and state != before:
            log.warning("source_not_bound", reason=state.problem, advice=state.advice)
        self._states[binding] = state
        self._logged.add(binding)


async def bind_all(connection: Connection, options: RabbitOptions) -> tuple[BindingState, ...]:
    """Create every binding, and return the states. Never raises for a refused binding."""
    return tuple(
        await asyncio.gather(
            *(_bind(connection, binding, f"{options.prefix}.{SOURCE}{binding.source}") for binding in options.bindings)
        )
    )


async def check_bindings(connection: Connection, options: RabbitOptions) -> tuple[BindingState, ...]:
    """Return which bindings could be created, and create none: each is tried with a queue that does not exist.

    The broker checks the permission before it looks up the queue.
    """
    missing_queue = f"{options.prefix}.doctor.{secrets.token_hex(4)}"
    states = []
    for binding in options.bindings:
        state = await _bind(connection, binding, missing_queue)
        # If queue and exchange are missing, the broker reports only one.
        states.append(await _check_exchange(connection, binding) if state.problem == _NO_QUEUE_PROBLEM else state)
    return tuple(states)


async def _check_exchange(connection: Connection, binding: Binding) -> BindingState:
    """Check that the exchange exists. A passive declare ignores its type."""
    return await _try_frame(connection, binding, _Declare(exchange=binding.exchange, passive=True), "")


async def _bind(connection: Connection, binding: Binding, queue: str) -> BindingState:
    """Bind the queue. Return the binding's state, with the problem of a refusal or a missing exchange."""
    bind = _Bind(queue=queue, exchange=binding.exchange, routing_key=binding.routing_key)
    state = await _try_frame(connection, binding, bind, queue)
    if state.problem.startswith(_REFUSED_PROBLEM):  # reported before a missing exchange
        exchange = await _check_exchange(connection, binding)
        if exchange.problem == _NO_EXCHANGE_PROBLEM:
            return copy_record(exchange, advice=f"{state.advice}, and {exchange.advice}")
    return state


async def _try_frame(connection: Connection, binding: Binding, frame: base.Frame, queue: str) -> BindingState:
    """Send the frame on a new channel. Return the binding's state. `queue`: the queue in the frame, or empty."""
    try:
        async with channel_of(connection) as channel, broker_timeout():
            await channel.rpc(frame)
    except (*CONNECTION_ERRORS, QueueUnavailable, ValueError) as error:  # ValueError: a name that AMQP cannot encode
        return _explain_refusal(binding, error, queue)
    return BindingState(binding=binding)


class _Bind(commands.Queue.Bind):
    """Permits exchange names that RabbitMQ accepts but pamqp does not: over 127 characters, or with other characters.

    MassTransit and NServiceBus name exchanges after .NET types; names of generic types are long and have brackets.
    """

    def validate(self) -> None:
        """Leave the check to the broker."""


class _Declare(commands.Exchange.Declare):
    """Permits the same names as `_Bind`."""

    def validate(self) -> None:
        """Leave the check to the broker."""


_REFUSED_PROBLEM = "the broker refuses it"
_NO_EXCHANGE_PROBLEM = "it does not exist"
_NO_QUEUE_PROBLEM = "its queue does not exist"
_NO_EXCHANGE_ADVICE = (
    "start the service that publishes to it once, or declare it as that service would (MassTransit's is a durable "
    "fanout). The binding is tried every 30 s. What is published before goes nowhere"
)


def _explain_refusal(binding: Binding, error: BaseException, queue: str) -> BindingState:
    reason = reason_of(error)
    match error:
        case ChannelNotFoundEntity() if _MISSING_QUEUE.search(reason):
            problem = _NO_QUEUE_PROBLEM
            advice = "`notifier topology declare` makes it, and so does a worker (queue.topology: declare)"
        case ChannelNotFoundEntity():
            problem, advice = _NO_EXCHANGE_PROBLEM, _NO_EXCHANGE_ADVICE
        case ChannelAccessRefused():
            user = _REFUSED_USER.search(reason)
            name = f"user {user[1]}" if user else "our user"
            verb, what = ("write", queue) if queue and f"'{queue}'" in reason else ("read", binding.exchange)
            problem = f"{_REFUSED_PROBLEM}: {reason}"
            advice = f"give {name} the permission `{verb}` on {what} (rabbitmqctl set_permissions)"
        case _:
            problem, advice = f"the broker did not make it: {reason}", "it is tried again every 30 s"
    return BindingState(binding=binding, problem=problem, advice=advice)
