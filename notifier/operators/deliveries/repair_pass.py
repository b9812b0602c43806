"""Passes once over the dead letters or the pending deliveries, to read, remove or move messages.

A pass ignores messages that arrive meanwhile: deliveries that are replayed and refused again become dead letters again,
so the pass would never end. A pass can stop between two batches, and a second pass continues. A message is deleted only
after its replacement is durable. On SQLite both happen in one transaction. On RabbitMQ a pass that is killed in between
repeats at most one batch: clients receive these logouts twice, which does no harm.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from notifier.model.client import ClientKey
from notifier.model.errors import PassStopped, QueueBusy, QueueError
from notifier.model.message import Message, Transfer
from notifier.operators.deliveries.groups import Summary
from notifier.operators.deliveries.repair_result import STOPPED_TEXT, RepairResult, format_limit
from notifier.queues.passes import OnWait, OpenPass, QueuePass, RepairOptions, hold_pass, ignore_holder

MESSAGES_PER_STEP = 100  # messages between two yields to the event loop: 1 to 3 ms
READ_OPTIONS = RepairOptions(clock=time.time, monotonic=time.monotonic, pause=asyncio.sleep)
MIN_RATE, MAX_RATE = 0.001, 100_000.0  # messages a second

P = TypeVar("P")
S = TypeVar("S", bound=Summary)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(Generic[P, S]):
    """Selects the messages that meet all conditions, among the dead letters or among the pending deliveries.

    A member that is None or empty does not restrict the selection. `subject` is a `sub` or `sid`. `since` and `until`
    are the earliest and latest `session_at`, in epoch seconds. `issuers` are the issuers that the operator may see;
    None for all.
    """

    ids: frozenset[str] = frozenset()
    client_id: str | None = None
    iss: str | None = None
    event_id: str | None = None
    subject: str | None = None
    reasons: frozenset[str] = frozenset()
    since: float | None = None
    until: float | None = None
    issuers: frozenset[str] | None = None

    @property
    def has_conditions(self) -> bool:
        """Return False if the filter selects every message of `issuers`."""
        raise NotImplementedError

    def open_pass(self, messages: P, on_wait: OnWait = ignore_holder, *, whole: bool) -> OpenPass[S]:
        """Open a pass over the selected messages, with bodies if `whole`. Raises QueueError."""
        raise NotImplementedError

    def matches_summary(self, summary: S) -> bool:
        """Return True if the message meets all conditions except `subject`, which a summary does not contain."""
        raise NotImplementedError

    def _meets_shared_conditions(self, summary: Any) -> bool:
        """Return True if the message meets the conditions that this class declares, except `subject`."""
        moment = summary.session_at
        return (
            (not self.ids or summary.id in self.ids)
            and (self.issuers is None or summary.iss in self.issuers)
            and (self.client_id is None or summary.client_id == self.client_id)
            and (self.iss is None or summary.iss == self.iss)
            and (self.event_id is None or summary.event_id == self.event_id)
            and (not self.reasons or summary.reason in self.reasons)
            and (self.since is None or (moment is not None and moment >= self.since))
            and (self.until is None or (moment is not None and moment <= self.until))
        )


async def find_messages(
    messages: P, filter_: Filter[P, S], options: RepairOptions = READ_OPTIONS, *, whole: bool = False
) -> AsyncGenerator[tuple[S, Message], None]:
    """Yield the selected messages in the order of their queues. Messages have bodies only if `whole`.

    The caller closes the iterator (`aclosing`). Raises QueueError.
    """
    async with hold_pass(partial(filter_.open_pass, messages, whole=whole), options) as queue_pass:
        read_count = 0
        while page := await queue_pass.next_page():
            for number, entry in enumerate(page):
                if number % MESSAGES_PER_STEP == MESSAGES_PER_STEP - 1:
                    options.progress(read_count + number, read_count + len(page) + queue_pass.left)
                    await asyncio.sleep(0)
                if entry.summary is not None:
                    yield entry.summary, entry.message
            read_count += len(page)
            total = read_count + queue_pass.left
            options.progress(read_count, total)
            options.on_hold(read_count / total)


REMOVE: Literal["remove"] = "remove"


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """The decision to leave a message unchanged, for this reason."""

    reason: str


Decision: TypeAlias = Transfer | KeptMessage | Literal["remove"]


class RepairPass(Generic[S]):
    """One pass that calls `decide` for each selected message, and removes or moves the message accordingly.

    `report` receives the summary of each message that was removed or moved; none in a dry run. `ids` are the IDs of the
    filter.
    """

    def __init__(
        self,
        open_pass: Callable[[OnWait], OpenPass[S]],
        decide: Callable[[Message, S], Decision],
        options: RepairOptions,
        report: Callable[[S], None] = lambda _: None,
        ids: frozenset[str] = frozenset(),
    ) -> None:
        self._open_pass = open_pass
        self._missing = set(ids)
        self._decide = decide
        self._options = options
        self._report = report
        self._done = 0
        self._reasons: Counter[str] = Counter()
        self._clients: Counter[ClientKey] = Counter()
        self._kept: Counter[str] = Counter()
        self._unfinished: str | None = None
        self._limited = False

    async def run(self) -> RepairResult:
        """Pass over the messages until the end, a stop or a failure. Never raises QueueError."""
        failed = busy = False
        try:
            async with hold_pass(self._open_pass, self._options) as queue_pass:
                await self._repair_pages(queue_pass)
        except PassStopped:
            self._unfinished = STOPPED_TEXT
        except QueueError as error:
            self._unfinished, failed, busy = str(error), True, isinstance(error, QueueBusy)
        return RepairResult(
            done=self._done,
            by_reason=dict(self._reasons.most_common()),
            by_client=dict(self._clients.most_common()),
            kept=dict(self._kept.most_common()),
            unfinished=self._unfinished,
            limited=self._limited,
            failed=failed,
            busy=busy,
            missing=frozenset() if self._unfinished else frozenset(self._missing),
        )

    async def _repair_pages(self, queue_pass: QueuePass[S]) -> None:
        """Repair the messages batch by batch until the end, the limit or a stop. Raises QueueError."""
        read_count = 0
        while page := await queue_pass.next_page():
            for start in range(0, len(page), MESSAGES_PER_STEP):
                if self._options.stop():
                    self._unfinished = STOPPED_TEXT
                    return
                chunk = page[start : start + MESSAGES_PER_STEP]
                matches = [(entry.message, entry.summary) for entry in chunk if entry.summary is not None]
                await self._repair_batch(queue_pass, matches)
                if self._unfinished is not None:
                    return
                read_count += len(chunk)
                unread_of_page = len(page) - start - len(chunk)
                total = read_count + unread_of_page + queue_pass.left
                self._options.progress(read_count, total)
                self._options.on_hold(read_count / total)
                await asyncio.sleep(0)

    async def _repair_batch(self, queue_pass: QueuePass[S], matches: Sequence[tuple[Message, S]]) -> None:
        """Decide about each message of the batch, then remove and move them together. Stop at the limit."""
        remaining = None if self._options.limit is None else self._options.limit - self._done
        summaries: dict[int, S] = {}  # of the messages to remove or move, by id()
        removed: list[Message] = []
        transfers: list[Transfer] = []
        is_limit_reached = False
        for message, summary in matches:
            if len(summaries) == remaining:
                is_limit_reached = True
                break
            self._missing.discard(summary.id)
            decision = self._decide(message, summary)
            if isinstance(decision, KeptMessage):
                self._kept[decision.reason] += 1
                continue
            summaries[id(message)] = summary
            if isinstance(decision, Transfer):
                transfers.append(decision)
            else:
                removed.append(message)
        if summaries:
            await self._carry_out(queue_pass, removed, transfers, summaries)
        if is_limit_reached and self._unfinished is None:
            self._limited = True
            self._unfinished = format_limit(self._options.limit)

    async def _carry_out(
        self, queue_pass: QueuePass[S], removed: Sequence[Message], transfers: Sequence[Transfer],
        summaries: Mapping[int, S],
    ) -> None:  # fmt: skip
        """Remove and move the messages, and count those for which it succeeded; in a dry run, count all."""
        if self._options.dry_run:
            self._count([*removed, *(transfer.taken for transfer in transfers)], summaries)
            return
        if removed:
            self._count(await queue_pass.remove(removed), summaries)
        if transfers:
            moved = await queue_pass.move(transfers)
            self._count(moved.done, summaries)
            if moved.failure is not None:
                raise moved.failure

    def _count(self, done: Sequence[Message], summaries: Mapping[int, S]) -> None:
        """Count these messages, and report them unless it is a dry run. `summaries` are by the id() of the message."""
        for message in done:
            summary = summaries[id(message)]
            self._done += 1
            self._reasons[summary.reason] += 1
            self._clients[summary.iss, summary.client_id] += 1
            if not self._options.dry_run:
                self._report(summary)
