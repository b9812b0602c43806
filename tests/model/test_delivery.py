"""What a delivery remembers, and what identifies it."""

from hypothesis import given
from hypothesis import strategies as st

from notifier.model import json_size
from notifier.model.client import Algorithm
from notifier.model.delivery import ANSWER_TEXT, HISTORY_LENGTH, HISTORY_TEXT, Delivery, DeliveryIds, Inline, Past
from notifier.model.frozen import replace

DELIVERY = Delivery(id="d", event_id="e", id_given=True, iss="i", client_id="c", sub="s", sid=None)
_PART = st.none() | st.text(max_size=4)
_INLINE = st.none() | st.builds(
    Inline,
    backchannel_logout_uri=_PART,
    backchannel_logout_session_required=st.none() | st.booleans(),
    id_token_signed_response_alg=st.none() | st.sampled_from(Algorithm),
)
_PARTS = st.tuples(st.text(max_size=4), _PART, _PART, st.text(max_size=4), st.text(max_size=4), _PART, _PART, _INLINE)
Parts = tuple[str, str | None, str | None, str, str, str | None, str | None, Inline | None]


def identity(parts: Parts) -> str:
    iss, publisher, source, event_id, client_id, sub, sid, inline = parts
    spoken_by = (publisher, source)
    return DeliveryIds(iss=iss, spoken_by=spoken_by, event_id=event_id).of(client_id, sub, sid, inline)


@given(st.lists(st.integers(0, 3000), max_size=30))
def test_history_is_bounded_and_keeps_the_newest(sizes: list[int]) -> None:
    """The last ten outcomes, 1 KiB of text each and 2 KiB in all as it is written, the newest text first."""
    delivery = DELIVERY
    for at, size in enumerate(sizes):
        delivery = replace(
            delivery, history=delivery.with_past(Past(at=at, reason="server_error", status=500, text='"' * size))
        )
    history = delivery.history
    assert [past.at for past in history] == list(range(len(sizes)))[-HISTORY_LENGTH:]
    assert sum(json_size.size(past.text) for past in history) <= HISTORY_TEXT
    if sizes:
        assert ANSWER_TEXT - 8 <= json_size.size(history[-1].text) <= ANSWER_TEXT or len(history[-1].text) == sizes[-1]


@given(_PARTS, _PARTS)
def test_different_parts_make_different_ids(one: Parts, other: Parts) -> None:
    """Neither moving a letter from one part to the next nor an empty one for an absent one makes the same id."""
    assert (identity(one) == identity(other)) == (one == other)


def test_an_id_is_the_same_in_every_process() -> None:
    """It recognises copies, so it must not depend on anything of this run, nor on the release."""
    assert identity(("iss", None, "/s", "e", "c", "sub", None, None)) == "a27622f31c7a320139b78b7d6d74e144"
    inline = Inline(backchannel_logout_uri="https://c/out", backchannel_logout_session_required=True)
    assert identity(("iss", None, "/s", "e", "c", "sub", None, inline)) == "e11a5f126948ea1288f2d82930622cda"
