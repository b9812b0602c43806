"""Admits deliveries: the verdicts that need no attempt, and the answers to a delivery that is to be attempted. Pure."""

import asyncio
import math
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from notifier.delivery.ages import describe_attempts, expiry_text, fault_wait_seconds, grace_left, is_too_old
from notifier.delivery.verdict import Dead, Defer, WaitsAs
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import Cause, DeadReason
from notifier.model.registry import Registry

PAUSED_SECONDS = 512.0  # until a paused delivery is admitted again: a power of two; it does not count as age
NO_SUCH_CLIENT = "the registry has no such client (yet)"
NO_ADDRESS = "the registry has no address for this client any more"
_IGNORED = ", and the address that its event brings does not count (registry.inline)"
UNKNOWN_TEXTS = frozenset({NO_SUCH_CLIENT, NO_ADDRESS, NO_SUCH_CLIENT + _IGNORED, NO_ADDRESS + _IGNORED})

Deferral: TypeAlias = tuple[Delivery, Defer]


class Side(Enum):
    """Which slots attempts at a client take: those of the window, those for slow clients, or those for probes."""

    QUICK = "quick"
    SLOW = "slow"
    PROBE = "probe"

    __hash__ = object.__hash__  # that of Enum is a function in Python


class Room(Protocol):
    """What the clients of a worker share. See `Slots`."""

    def free(self, side: Side, lane: Lane, *, closed: bool) -> int:
        """Return how many slots of this side are free for a client. `closed`: its circuit is."""

    def fill(self) -> float:
        """Return the used share of memory, or of the prefetch of events if that is more."""

    def patience(self) -> float:
        """Return for how many seconds a delivery may wait in memory."""

    def many_probes_free(self) -> bool:
        """True if more than half of the slots for probes are free."""

    def workers(self) -> int:
        """How many workers there are, this one included."""

    def ahead(self) -> float:
        """Return the seconds from the steady clock to the wall clock."""


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """A delivery that has a slot of its client or waits in memory for one, and the client as resolved for it.

    `fetched`: by this worker, from its bucket. `woken`: what its task waits for. `wake` sets it to
    the deferral, or to None if the delivery starts or a probe need not wait for its replacement any more. `posted_at`:
    when its request was sent, by the steady clock.
    """

    delivery: Delivery
    client: Client
    lane: Lane
    fetched: bool = False
    woken: "asyncio.Future[Deferral | None] | None" = None
    posted_at: float = math.inf
    opened_circuit: bool = False
    rotated: bool | None = None

    def wake(self, deferred: Deferral | None = None) -> None:
        """End the wait, unless the process ends and has cancelled it."""
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(deferred)

    def on_circuit_opened(self) -> None:
        """Note that the failure of this attempt opened the client's circuit."""
        self.opened_circuit = True

    def on_rotation(self, *, rotated: bool) -> None:
        """Note whether another delivery became the probe after the failures of this one."""
        self.rotated = rotated


class StartNow(Ticket):
    """Attempt the delivery now."""

    __slots__ = ()


class Wait(Ticket):
    """The delivery waits in memory; another method of `Gate` returns it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Defer the delivery. `due`: the moment of its return or, if it is parked, of the client's next probe.

    Moments are those of the steady clock; `Buckets.defer` returns the deferral by the wall clock.
    """

    due: float
    cause: Cause
    waits_as: WaitsAs
    turn: float | None = None


def before_attempt(
    delivery: Delivery, client: Client | None, judged_as: Client, registry: Registry, now: float
) -> Defer | Dead | None:
    """Return the verdict that needs no attempt; None if the delivery is to be attempted.

    `judged_as`: the client, or its issuer's default if the client is unknown.
    """
    if delivery.not_after is not None and now > delivery.not_after:
        text = f"{describe_attempts(delivery, now)}: not_after has passed, the session ran out at the client by itself"
        return Dead(reason=DeadReason.EXPIRED, text=text)
    if delivery.first_taken_at is not None and is_too_old(delivery, judged_as, now):
        return Dead(reason=DeadReason.EXPIRED, text=expiry_text(delivery, judged_as, now))
    if client is None or client.logout_uri is None:
        return _unknown(delivery, NO_SUCH_CLIENT if client is None else NO_ADDRESS, registry, now)
    if client.paused:
        return Defer(due=now + PAUSED_SECONDS, cause=Cause.PAUSED, text="the registry has paused: true")
    return None


def _unknown(delivery: Delivery, unknown: str, registry: Registry, now: float) -> Defer | Dead:
    """Defer the delivery for `grace` from when a worker first found no address for it, then give it up.

    However the registry came to have none: a worker that started since does not know that it had one.
    """
    denied = registry.inline == "deny"  # no event may bring an address
    inline = delivery.ignored or (delivery.inline if denied else None)
    ignored = inline is not None and inline.backchannel_logout_uri is not None
    looks = 0 if delivery.unknown_since is None else delivery.deferrals
    time_left = grace_left(delivery.unknown_since, looks, registry.grace, now)
    if time_left > 0:
        wait = min(time_left, fault_wait_seconds(looks))
        return Defer(due=now + wait, cause=Cause.UNKNOWN, text=unknown + _IGNORED if ignored else unknown)
    if delivery.iss not in registry.issuers:
        text = f"{delivery.iss} is not one of `issuers`; add it, then replay"
        return Dead(reason=DeadReason.UNKNOWN_ISSUER, text=text)
    text = _why_unknown(delivery, gone=unknown == NO_ADDRESS, ignored=ignored, denied=denied)
    return Dead(reason=DeadReason.UNKNOWN_CLIENT, text=text)


def _why_unknown(delivery: Delivery, *, gone: bool, ignored: bool, denied: bool) -> str:
    """Return why there is no address for the client, and the remedy. `gone`: it is registered without one."""
    name = f"client {delivery.client_id!r}"
    why = f"the registry has no {name} of this issuer that can be used"
    remedy, shows = "register the client", "whether it was left out, and why"
    if gone:
        why = f"the address of the {name} is gone: the registry has none for it any more"
        remedy, shows = "register its address", "where its registration comes from"
    if not ignored:
        return f"{why}, and the event has no URI; `notifier clients show` reports {shows}; {remedy}, then replay"
    why = f"{why}, and the event's URI does not count"
    if denied:
        return f"{why}, since registry.inline is deny; {remedy}, then replay"
    publisher = f"it is {delivery.publisher!a}"
    if delivery.publisher is None:
        publisher = "it has neither a user_id nor, over HTTP, an API token"
    return (
        f"{why}: its publisher is not known to be the identity server ({publisher}; registry.inline). Name the "
        f'publisher in issuers["{delivery.iss}"].publishers, or {remedy}; then replay'
    )
