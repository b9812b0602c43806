"""Recorded messages, mutated: each finds its way, or is refused; and reading them leaves nothing behind."""

import gc
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from notifier.domain.dead_letter import dump_dead_letter, load_dead_letter
from notifier.domain.documents import load_delivery
from notifier.domain.errors import MalformedEvent, UnknownVersion
from notifier.domain.message import Kind, Lane, Message
from tests.fuzz.conftest import LONG
from tests.fuzz.mutation import mutated, samples
from tests.fuzz.promises import NOW, open_fully, read
from tests.fuzz.test_documents import go_through

KINDS = {"publisher": None, "event": Kind.EVENT, "delivery": Kind.DELIVERY, "dead-letter": Kind.DEAD_LETTER}
GROWTH = 4 * 1024 * 1024  # bytes that the process may have grown by: a leak of 420 bytes a case would be seen
FIRST = 3_000  # cases until caches are full and the heap has found its size


def message(name: str, body: bytes) -> Message:
    """A message of the sample's kind."""
    kind = KINDS[name.rpartition("-")[0]]
    return Message(lane=Lane.RETRIES, body=body, tag=None, kind=kind, message_id="m-1", timestamp=NOW)


def follow(came: Message) -> list[str]:
    """Everything that may be done with it, by a worker and by an operator."""
    if came.kind is None:
        read(came)
    if came.kind is Kind.DELIVERY:
        with suppress(MalformedEvent, UnknownVersion):
            go_through(load_delivery(came.body))
    with suppress(UnknownVersion):
        dump_dead_letter(load_dead_letter(came))
    return open_fully(came)


@pytest.mark.parametrize("name", samples())
def test_every_sample_is_what_it_was(name: str) -> None:
    """As it was recorded, a message of ours is read by this release."""
    ways = {"publisher": ("delivery", "dead", "delay.2s"), "event": ("delay.4s",), "delivery": ("delivery",)}
    assert follow(message(name, samples()[name]))[0] in ways.get(name.rpartition("-")[0], ("dead",))


@pytest.mark.timeout(1800)
def test_mutations_find_their_way_and_leave_nothing_behind() -> None:
    """10,000 of them and more do not make the process larger."""
    chance, recorded = random.Random(7), samples()
    others, came = list(recorded.values()), Counter[str]()

    def some(count: int) -> None:
        for _ in range(count):
            name = chance.choice(list(recorded))
            came.update(set(follow(message(name, mutated(recorded[name], others, chance)))))

    some(FIRST)
    before = resident()
    some(200_000 if LONG else 10_000)
    grown = resident() - before
    assert grown < GROWTH, f"grown by {grown} bytes; {came}"
    assert {"delivery", "dead", "delay.2s"} <= came.keys(), came


def resident() -> int:
    """Bytes of memory that the process has, once the garbage is collected."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096
