"""Tells whoever asked what became of each client of an event, and keeps the account of what was told so far.

Two sides. `Fates` watches the worker: of a delivery whose publisher asked, every fact that is a fate becomes a reply;
of any other it costs a look-up and a comparison. `Account` is the side of who asked, over HTTP or at the command line.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType

from notifier.domain.delivery import Delivery
from notifier.domain.fate import Fate, Told, document_of, load_told
from notifier.domain.frozen import replace
from notifier.domain.outcome import DeadReason
from notifier.domain.reply import ReplyTo
from notifier.pipeline.facts import Buried, Deferred, Delivered, EventTaken, Fact, RetryScheduled, Skipped

Answer = Callable[[ReplyTo, Told], None]
"""Sends a reply. Best effort: must return at once and never raise."""


class Fates:
    """An observer that replies to publishers with what became of each client."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def observe(self, fact: Fact) -> None:
        """Reply, where somebody asked."""
        tell = _TELL.get(type(fact))
        if tell is not None and (asked := tell(fact)) is not None:
            self._answer(*asked)


def _delivered(fact: Fact) -> tuple[ReplyTo, Told] | None:
    assert isinstance(fact, Delivered)
    delivery = fact.delivery
    if delivery.reply_to is None:
        return None
    done = replace(delivery, attempts=delivery.attempts + 1)
    return delivery.reply_to, _of_delivery(done, Fate.DELIVERED, delivery.reply_to)


def _retrying(fact: Fact) -> tuple[ReplyTo, Told] | None:
    assert isinstance(fact, RetryScheduled)
    delivery = fact.delivery
    if delivery.reply_to is None:
        return None
    last = delivery.history[-1] if delivery.history else None
    reason, status = ("", None) if last is None else (last.reason, last.status)
    return delivery.reply_to, _of_delivery(
        delivery, Fate.RETRYING, delivery.reply_to, reason=reason, status=status, due=fact.due
    )


def _deferred(fact: Fact) -> tuple[ReplyTo, Told] | None:
    assert isinstance(fact, Deferred)
    asked = fact.reply_to
    if asked is None:
        return None
    if fact.delivery is not None:
        return asked, _of_delivery(fact.delivery, Fate.RETRYING, asked, reason=fact.cause.value, due=fact.due)
    return asked, Told(
        fate=Fate.RETRYING, iss=fact.iss, event_id=fact.event_id, client_id=fact.client_id or None,
        reason=fact.cause.value, next_due=fact.due, of=asked.of,
    )  # fmt: skip


def _buried(fact: Fact) -> tuple[ReplyTo, Told] | None:
    assert isinstance(fact, Buried)
    asked = fact.reply_to
    if asked is None:
        return None
    if fact.delivery is not None:
        # Which of our addresses a name leads to is for operators: whoever may publish may name any URI.
        text = "" if fact.reason is DeadReason.EGRESS_DENIED else fact.text
        return asked, _of_delivery(fact.delivery, Fate.DEAD, asked, reason=fact.reason.value, text=text)
    return asked, Told(
        fate=Fate.DEAD, iss=fact.iss, event_id=fact.event_id, client_id=fact.client_id or None,
        reason=fact.reason.value, text=fact.text, of=asked.of,
    )  # fmt: skip


def _skipped(fact: Fact) -> tuple[ReplyTo, Told] | None:
    assert isinstance(fact, Skipped)
    asked = fact.reply_to
    if asked is None:
        return None
    told = Told(fate=Fate.SKIPPED, iss=fact.iss, event_id=fact.event_id, client_id=fact.client_id, of=asked.of)
    return asked, told


def _taken(fact: Fact) -> tuple[ReplyTo, Told] | None:
    """Of an event as a whole only what no client's fate tells: that it is a copy, or that it concerns nobody."""
    assert isinstance(fact, EventTaken)
    asked = fact.reply_to
    if asked is None:
        return None
    if fact.result == "duplicate":
        return asked, Told(fate=Fate.DUPLICATE, iss=fact.iss, event_id=fact.event_id, of=asked.of)
    if fact.result == "split" and asked.of == 0:
        return asked, Told(fate=Fate.SKIPPED, iss=fact.iss, event_id=fact.event_id, of=0)
    return None


_TELL: Mapping[type[Fact], Callable[[Fact], tuple[ReplyTo, Told] | None]] = MappingProxyType(
    {
        Delivered: _delivered,
        RetryScheduled: _retrying,
        Deferred: _deferred,
        Buried: _buried,
        Skipped: _skipped,
        EventTaken: _taken,
    }
)


def _of_delivery(
    delivery: Delivery,
    fate: Fate,
    asked: ReplyTo,
    *,
    reason: str = "",
    status: int | None = None,
    due: float | None = None,
    text: str = "",
) -> Told:
    return Told(
        fate=fate, iss=delivery.iss, event_id=delivery.event_id, client_id=delivery.client_id, id=delivery.id,
        reason=reason or None, status=status, attempts=delivery.attempts, next_due=due, text=text, of=asked.of,
    )  # fmt: skip


class Account:
    """What is known so far of one event: of each client, or of the event where none is concerned alone."""

    def __init__(self) -> None:
        self._told: dict[tuple[str | None, str], Told] = {}
        self._whole: Told | None = None
        self._of: int | None = None

    def note(self, told: Told) -> None:
        """A reply came. The last word on a client is not taken back by an earlier one that comes late."""
        if not told.of or told.fate is Fate.DUPLICATE:
            self._whole = told
            return
        self._whole = None
        self._of = told.of
        key = (told.client_id, told.id or told.text)
        known = self._told.get(key)
        if known is None or not known.settled or told.settled:
            self._told[key] = told

    @property
    def told(self) -> list[Told]:
        """What is known, in the order in which it was first heard of."""
        whole = [] if self._whole is None else [self._whole]
        return [*self._told.values(), *whole]

    def document(self) -> dict[str, object]:
        """As JSON: whether it is complete, each client's fate, and that of the event where no client is concerned."""
        clients = [_plain(told) for told in self._told.values()]
        whole = {} if self._whole is None else _plain(self._whole)
        return {"complete": self.settled, **whole, "clients": clients}

    @property
    def settled(self) -> bool:
        """Whether the last word on every client was said."""
        return self.idle_until(math.inf)

    def idle_until(self, moment: float) -> bool:
        """Whether nothing more can come before then (epoch seconds): of each client it is settled, or due later."""
        known = self._whole is not None or (self._of is not None and len(self._told) >= self._of)
        return known and all(
            each.settled or (each.next_due is not None and each.next_due >= moment) for each in self.told
        )


def _plain(told: Told) -> dict[str, object]:
    """Without what whoever published knows, and what only tells replies apart."""
    return {name: value for name, value in document_of(told).items() if name not in ("iss", "event_id", "of", "id")}


class Accounts:
    """What is known so far of several events, by their ids."""

    def __init__(self, event_ids: Iterable[str]) -> None:
        self._accounts = {event_id: Account() for event_id in event_ids}
        self._changed = asyncio.Event()

    def of(self, event_id: str) -> Account:
        """One event's."""
        return self._accounts[event_id]

    def hear(self, told: Told) -> None:
        """A reply came."""
        if (account := self._accounts.get(told.event_id)) is not None:
            account.note(told)
            self._changed.set()

    def hear_reply(self, body: bytes) -> None:
        """A reply came, as a document; one that this release cannot read is ignored."""
        if (told := load_told(body)) is not None:
            self.hear(told)

    async def over(self, seconds: float, clock: Callable[[], float]) -> None:
        """Return after so many seconds, or as soon as nothing more can come within them."""
        until = clock() + seconds
        open_ones = list(self._accounts.values())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while open_ones := [account for account in open_ones if not account.idle_until(until)]:
                    await self._changed.wait()
                    self._changed.clear()
