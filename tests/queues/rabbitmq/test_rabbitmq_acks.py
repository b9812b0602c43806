"""The ledger of acks, against a model of a broker's reaction to acks."""

from hypothesis import given
from hypothesis import strategies as st

from notifier.queues.rabbitmq.acks import AckLedger


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
