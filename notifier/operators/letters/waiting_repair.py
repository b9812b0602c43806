"""Cancels what waits, or makes it due, for the command line and the API. See `visits`."""

import math
from collections.abc import Callable

from notifier.model.message import Message
from notifier.operators.letters.visits import REMOVE, Pass, RepairResult, Stays, Verdict
from notifier.operators.letters.waiting_filter import WaitingFilter, WaitingSummary, due_in
from notifier.operators.letters.waiting_listing import walk_over
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import WaitingPlace

DUE_RATE = 1000.0  # a second that are made due: a worker takes four times as many, so that others' retries go on
EARLIER = "earlier"  # why one stays: its turn would come later than it comes itself
ASKED = "asked"  # why one stays: its client is not to be called before


async def cancel(
    waiting: WaitingPlace,
    meant: WaitingFilter,
    options: RepairOptions,
    report: Callable[[WaitingSummary], None] = lambda _: None,
) -> RepairResult:
    """Delete what is meant, for good: its clients are never told. `report` hears of each."""
    return await Pass(walk_over(waiting, meant, whole=False), lambda _message, _one: REMOVE, options, report).run()


async def make_due(
    waiting: WaitingPlace,
    meant: WaitingFilter,
    options: RepairOptions,
    *,
    force: bool,
    pace: Callable[[], float] = lambda: math.inf,
) -> RepairResult:
    """Have what waits in delay queues attempted now. What its client asked to wait for stays, but with `force`.

    `pace`: how many a second are to be attempted, asked for each. One comes at its turn, or before by itself.
    """
    turn = options.clock()

    def judge(message: Message, one: WaitingSummary) -> Verdict:
        nonlocal turn
        if one.asked and not force:
            return Stays(ASKED)
        own, turn = turn, turn + 1 / pace()
        if one.due is not None and one.due <= own:
            return Stays(EARLIER)
        return due_in(message, own - options.clock(), own)

    return await Pass(walk_over(waiting, meant, whole=True), judge, options).run()
