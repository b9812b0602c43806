"""Events made up by a grammar, in bodies, envelopes and headers: each is an event, or refused with its mistakes."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.errors import MalformedEvent
from notifier.domain.event_document import understand
from notifier.domain.event_entries import places
from notifier.domain.message import Lane, Message
from tests.fuzz import grammar
from tests.fuzz.conftest import LONG, many
from tests.fuzz.promises import NOW, open_fully, read


@pytest.mark.timeout(3000)
def test_every_message_is_an_event_or_refused() -> None:
    """Nothing but MalformedEvent is raised, and its texts are bounded, printable and hold nothing of the subject."""
    came: Counter[str] = Counter()

    @many(1_000, 100_000)
    @given(grammar.messages())
    def each(message: Message) -> None:
        came["event" if read(message) is not None else "refused"] += 1

    each()
    assert came.total() >= (100_000 if LONG else 1_000)
    assert came["event"] > came.total() / 20, came  # else the grammar is too wild to reach what lies behind
    assert came["refused"] > came.total() / 20, came


@pytest.mark.timeout(3000)
def test_every_message_finds_its_way() -> None:
    """Opened by the intake, it becomes deliveries, or messages for queues that are there; all of which read back."""
    came: Counter[str] = Counter()

    @many(500, 30_000)
    @given(grammar.messages())
    def each(message: Message) -> None:
        came.update(set(open_fully(message)))

    each()
    assert {"delivery", "Skipped", "dead", "events"} <= came.keys(), came


VALID: st.SearchStrategy[object] = st.sampled_from(
    ["shop", "mail", {"client_id": "a", "sid": "s"}, {"client_id": "b", "more": [1]}]
)
WRONG: st.SearchStrategy[object] = st.sampled_from(
    ["", "*", "x" * 1025, None, 1, [], {}, {"client_id": ""}, {"client_id": "a", "sub": 1},
     {"client_id": "c", "sid": ""}, {"client_id": "a", "backchannel_logout_uri": "http://"}, "a\n", True,
     {"client_id": ["a"]}],
)  # fmt: skip


@pytest.mark.timeout(600)
@many(300, 10_000)
@given(st.lists(st.tuples(st.booleans(), VALID, WRONG), min_size=1, max_size=12))
def test_a_wrong_entry_never_takes_the_others_with_it(drawn: list[tuple[bool, object, object]]) -> None:
    """Each entry is judged by itself, in its place."""
    written = [valid if good else wrong for good, valid, wrong in drawn]
    body = json.dumps({"iss": grammar.ISS, "sid": "s", "clients": written}).encode()
    message = Message(lane=Lane.EVENTS, body=body, tag=None)
    if not any(good for good, _, _ in drawn):
        with pytest.raises(MalformedEvent):
            understand(message, max_bytes=1 << 20, new_id=lambda: "made-up", now=NOW)
        return
    found = understand(message, max_bytes=1 << 20, new_id=lambda: "made-up", now=NOW)
    names = [entry if isinstance(entry, str) else entry.client_id for entry in found.event.clients]
    assert names == [valid if isinstance(valid, str) else valid["client_id"] for good, valid, _ in drawn if good]  # type: ignore[index]
    told = [] if found.wrong is None else [place for run in places(found.wrong.which) for place in run]
    assert told == [place for place, (good, _, _) in enumerate(drawn) if not good]
