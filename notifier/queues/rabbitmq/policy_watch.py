"""Watches which policies of the broker override the arguments of our queues.

The management API tells all of them, if `queue.management` names it. Otherwise a temporary queue shows some. Only a
process that may declare queues can try that: with `topology: verify` the doctor alone. A worker looks while it starts,
and its start does not wait for the result.
"""

import asyncio
import secrets

import structlog

from notifier.model.errors import QueueError, QueueUnavailable
from notifier.model.message import PolicyOverride
from notifier.queues.queue_state import PolicyLook
from notifier.queues.rabbitmq.connection import LOST, connected, ending, reason_of
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.policy_reader import read_policies
from notifier.queues.rabbitmq.policy_trial import try_policies

AGAIN_EVERY = 600.0  # seconds: an override ends when the broker's operator mends it, or begins
SOON = 60.0  # after a look that told not all
HELP = "notifier explain NotifierQueuePolicy"


async def look_at_policies(options: RabbitOptions, name: str, *, may_try: bool) -> PolicyLook:
    """Ask the management API, else try by queues whose names begin with `name`, if allowed. Raises QueueError."""
    fault = ""
    if options.management is not None:
        try:
            return PolicyLook(by="management", overrides=await read_policies(options))
        except QueueUnavailable as error:
            fault = str(error)
    if not may_try:
        return PolicyLook(fault=fault)
    async with connected(options, "policies") as connection:
        try:
            return PolicyLook(by="trial", overrides=await try_policies(connection, name), fault=fault)
        except (QueueUnavailable, *LOST) as error:
            return PolicyLook(fault=fault or f"no temporary queue can be tried: {reason_of(error)}")


class PolicyWatch:
    """Looks once a worker consumes, and again every ten minutes if that may tell something new.

    A trial that shows nothing is not repeated: each leaves two names in the broker's memory for good, if they are new.
    So a process has one name.
    """

    def __init__(self, options: RabbitOptions) -> None:
        self._options = options
        self._name = f"{options.prefix}.doctor.{secrets.token_hex(4)}"
        self._wanted = asyncio.Event()
        self._due: float | None = 0.0  # in the loop's time; None: never again
        self._fault = ""
        self._log = structlog.get_logger(__name__)
        self.overrides: tuple[PolicyOverride, ...] = ()

    def begin(self) -> None:
        """Look from now on."""
        self._wanted.set()

    async def run(self) -> None:
        """Look while there is a connection, until cancelled."""
        await self._wanted.wait()
        loop = asyncio.get_running_loop()
        while self._due is not None and not ending():
            await asyncio.sleep(max(0.0, self._due - loop.time()))
            try:
                look = await look_at_policies(self._options, self._name, may_try=self._options.topology == "declare")
            except QueueError as error:
                look = PolicyLook(fault=str(error))
            self._tell(look)
            nothing_new = look.by == "trial" and not look.overrides and self._options.management is None
            self._due = None if nothing_new else loop.time() + (SOON if look.fault else AGAIN_EVERY)

    def _tell(self, look: PolicyLook) -> None:
        """Log what is new. A look that told nothing, because of an alarm, say, ends nothing."""
        if look.fault and look.fault != self._fault:
            self._log.info("queue_policies_unread", reason=look.fault)
        self._fault = look.fault
        if look.by is None:
            return
        for override in look.overrides:
            if override not in self.overrides:
                self._log.warning("queue_policy", reason=str(override), help=HELP)
        if self.overrides and not look.overrides:
            self._log.info("queue_policy_gone")
        self.overrides = look.overrides
