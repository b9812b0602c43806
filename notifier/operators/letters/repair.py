"""Repairs dead letters, and what waits, for the command line and the API, oldest first. See `visits`."""

import math
from collections.abc import Callable
from typing import TypeVar

from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.message import Message, Transfer
from notifier.operators.letters.groups import Summary
from notifier.operators.letters.letter_filter import NEWER, LetterFilter, LetterSummary
from notifier.operators.letters.readmission import KeepReason, KeptLetter, Readmitted, ReplayRules, readmit
from notifier.operators.letters.visits import REMOVE, Decision, Filter, Pass, RepairResult, Stays
from notifier.operators.letters.waiting_filter import WaitingFilter, WaitingSummary, due_in
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import DeadLetters, WaitingDeliveries

DUE_RATE = 1000.0  # a second that are made due: a worker takes four times as many, so that others' retries go on
EARLIER = "earlier"  # why one stays: its turn would come later than it comes itself
ASKED = "asked"  # why one stays: its client is not to be called before

P = TypeVar("P")
S = TypeVar("S", bound=Summary)


async def remove(
    messages: P, filter_: Filter[P, S], options: RepairOptions, report: Callable[[S], None] = lambda _: None
) -> RepairResult:
    """Delete the messages that are meant, for good: their clients are never told. `report` hears of each.

    Messages that a later release wrote stay among the dead letters.
    """

    def judge(_message: Message, summary: S) -> Decision:
        return Stays(KeepReason.NEWER.value) if summary.reason == NEWER else REMOVE

    return await Pass(filter_.opened(messages, whole=False), judge, options, report, filter_.ids).run()


async def replay(
    letters: DeadLetters,
    chosen: LetterFilter,
    rules: ReplayRules,
    options: RepairOptions,
    report: Callable[[LetterSummary], None] = lambda _: None,
    *,
    readmitted: Callable[[LetterSummary, Readmitted], None] = lambda _letter, _readmitted: None,
) -> RepairResult:
    """Have the letters that match delivered again. `report` hears of each one done, `readmitted` what each becomes."""

    def judge(message: Message, summary: LetterSummary) -> Decision:
        if summary.reason == NEWER:
            return Stays(KeepReason.NEWER.value)
        readmission = readmit(load_dead_letter(message), rules, options.clock())
        if isinstance(readmission, KeptLetter):
            return Stays(readmission.why.value)
        readmitted(summary, readmission)
        return Transfer(letter=message, queue=readmission.queue, outgoing=readmission.outgoing)

    return await Pass(chosen.opened(letters, whole=True), judge, options, report, chosen.ids).run()


async def make_due(
    waiting: WaitingDeliveries,
    filter_: WaitingFilter,
    options: RepairOptions,
    *,
    force: bool,
    pace: Callable[[], float] = lambda: math.inf,
) -> RepairResult:
    """Have deliveries in delay queues attempted now. Without `force`, those stay whose client asked them to wait.

    `pace`: how many a second are to be attempted, asked for each. A delivery comes at its turn, or when it is due.
    """
    turn = options.clock()

    def judge(message: Message, summary: WaitingSummary) -> Decision:
        nonlocal turn
        if summary.asked and not force:
            return Stays(ASKED)
        own, turn = turn, turn + 1 / pace()
        if summary.due is not None and summary.due <= own:
            return Stays(EARLIER)
        return due_in(message, own - options.clock(), own)

    return await Pass(filter_.opened(waiting, whole=True), judge, options).run()
