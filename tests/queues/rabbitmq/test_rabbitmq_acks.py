"""The ledger of acks, and the renewals of a consumer, against models of a broker."""

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from notifier.queues.rabbitmq.acks import RENEWAL_SHARE, AckLedger, ChannelAcks


class BrokerModel:
    """A channel's unacked tags as RabbitMQ keeps them: acking an unknown tag closes the channel."""

    def __init__(self, delivered: int) -> None:
        self.unacked = set(range(1, delivered + 1))

    def ack(self, tag: int, *, multiple: bool) -> None:
        assert tag in self.unacked, "PRECONDITION_FAILED - unknown delivery tag"
        self.unacked -= {each for each in self.unacked if each <= tag} if multiple else {tag}


@given(
    order=st.integers(1, 40).flatmap(lambda count: st.permutations(range(1, count + 1))),
    flush_after=st.sets(st.integers(0, 40)),
    settled=st.integers(0, 40),
)
def test_broker_forgets_settled_messages_only(order: list[int], flush_after: set[int], settled: int) -> None:
    """Whatever the order and the moments of sending, exactly the settled tags are acked, each once."""
    ledger, broker = AckLedger(), BrokerModel(len(order))
    for index, tag in enumerate(order[:settled]):
        assert ledger.settle(tag)
        if index in flush_after:
            for frame, multiple in ledger.take():
                broker.ack(frame, multiple=multiple)
    for frame, multiple in ledger.take():
        broker.ack(frame, multiple=multiple)
    assert broker.unacked == set(order[settled:])
    assert ledger.take() == []


def test_a_contiguous_run_is_one_frame() -> None:
    """Acks in order cost one frame a batch, whatever its size."""
    ledger = AckLedger()
    for tag in range(1, 101):
        ledger.settle(tag)
    assert ledger.take() == [(100, True)]


def test_second_settlement_has_no_effect() -> None:
    """Settling twice acks once, before and after it was sent."""
    ledger = AckLedger()
    assert (ledger.settle(2), ledger.settle(2)) == (True, False)
    assert ledger.take() == [(2, False)]
    assert not ledger.settle(2)
    ledger.settle(1)
    assert ledger.take() == [(1, True)]
    assert not ledger.settle(1)


@given(prefetch=st.integers(1, 40), seed=st.integers(0, 2**32), weights=st.tuples(*[st.integers(1, 20)] * 2))
def test_renewals_keep_to_the_prefetch(prefetch: int, seed: int, weights: tuple[int, int]) -> None:
    """Whatever is set aside and acked, held messages that are not set aside never exceed the prefetch.

    They use over three quarters of it if messages are pending, and no renewal is due.
    """
    chance = random.Random(seed)
    channel: Any = None  # nothing is sent
    acks, last_tag, first_tag = ChannelAcks(channel, prefetch), 0, 1
    held, set_aside = set[int](), set[int]()
    size = acks.start_consumer(0)
    for _ in range(200):
        while sum(tag >= first_tag for tag in held | set_aside) < size:
            last_tag += 1
            held.add(last_tag)
        assert len(held) <= prefetch
        if not acks.needs_renewal.is_set():
            assert len(held) > (1 - RENEWAL_SHARE) * prefetch
        if held and chance.choices((True, False), weights)[0]:
            held.remove(tag := chance.choice([*held]))
            acks.set_aside(tag)
            set_aside.add(tag)
        else:
            tag = chance.choice([*held, *set_aside])
            acks.settle(tag)
            held.discard(tag)
            set_aside.discard(tag)
        if acks.needs_renewal.is_set() and chance.random() < 0.5:
            size, first_tag = acks.start_consumer(last_tag), last_tag + 1
