"""Replays and discards dead letters, for the command line and the API, oldest first. See `visits`."""

from collections.abc import Callable

from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.message import Message, Transfer
from notifier.operators.letters.letter_filter import NEWER, LetterFilter, LetterSummary, letter_reader
from notifier.operators.letters.readmission import KeepReason, KeptLetter, ReplayRules, readmit
from notifier.operators.letters.visits import REMOVE, Pass, RepairResult, Stays, Verdict
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import DeadLetters


async def discard(
    letters: DeadLetters,
    chosen: LetterFilter,
    options: RepairOptions,
    report: Callable[[LetterSummary], None] = lambda _: None,
) -> RepairResult:
    """Delete the letters that match, for good. `report` hears of each."""

    def judge(_message: Message, summary: LetterSummary) -> Verdict:
        return Stays(KeepReason.NEWER.value) if summary.reason == NEWER else REMOVE

    return await Pass(letters.visit(letter_reader(chosen, whole=False)), judge, options, report).run()


async def replay(
    letters: DeadLetters, chosen: LetterFilter, rules: ReplayRules, options: RepairOptions
) -> RepairResult:
    """Have the letters that match delivered again."""

    def judge(message: Message, summary: LetterSummary) -> Verdict:
        if summary.reason == NEWER:
            return Stays(KeepReason.NEWER.value)
        found = readmit(load_dead_letter(message), rules, options.clock())
        if isinstance(found, KeptLetter):
            return Stays(found.why.value)
        return Transfer(letter=message, queue=found.queue, outgoing=found.outgoing)

    return await Pass(letters.visit(letter_reader(chosen, whole=True)), judge, options).run()
