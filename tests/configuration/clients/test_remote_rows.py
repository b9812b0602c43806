"""What a row of a remote registry source may say."""

import asyncio
import json
from typing import Any

import pytest

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import Gathering, clean
from notifier.model.errors import Mistake

HOOK = "https://shop.example.com/hook"


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        ("shop", "[7]: must be the metadata of a client"),
        ({"backchannel_logout_uri": HOOK}, "[7]: has no client_id"),
        ({"client_id": ""}, "[7]: has no client_id"),
        ({"client_id": 42}, "[7]: client_id must be a text"),
        ({"client_id": "a", "backchannel_logout_uri": "/hook"}, "a: backchannel_logout_uri must be an absolute URI"),
        (
            {"client_id": "a", "backchannel_logout_uri": HOOK + "#x"},
            "a: backchannel_logout_uri must not have a fragment",
        ),
        ({"client_id": "a", "backchannel_logout_uri": "javascript:1"}, "a: backchannel_logout_uri must be"),
        ({"client_id": "a", "backchannel_logout_uri": [HOOK]}, "a: backchannel_logout_uri must be a text"),
        ({"client_id": "a", "backchannel_logout_url": HOOK}, "a: there is no member backchannel_logout_url; did"),
        ({"clientId": "a"}, "[7]: there is no member clientId; did you mean client_id?"),
        ({"client_id": "a", "aliases": "b"}, "a: aliases must be a list of texts"),
        ({"client_id": "a" * 1025}, "[7]: client_id must have at most 1024 characters"),
        ({"client_id": "a\x1b[31m"}, "[7]: client_id must have at most 1024 characters, and no control characters"),
        (
            {"client_id": "a", "backchannel_logout_uri": HOOK + "/" * 4096},
            "a: backchannel_logout_uri must have at most 4096 characters",
        ),
        ({"client_id": "a\ud800"}, "[7]: has a text that is no Unicode"),
        ({"client_id": "a", "notifier": {"retry_statuses": ["\ud800"]}}, "[7]: has a text that is no Unicode"),
        ({"client_id": "a", "notifier": "3s"}, "a: notifier must hold"),
    ],
)
def test_a_client_that_cannot_be_used_is_a_fault_that_names_it(raw: Any, fault: str) -> None:
    """The fault says what is wrong, and no other client is concerned."""
    found = clean(raw, "[7]")
    assert isinstance(found, Mistake)
    assert str(found).startswith(fault)


def _gathered(last: SourceAnswer | None, *raws: object, at: float, mark: str | None = None) -> SourceAnswer:
    gathering = Gathering(last)
    asyncio.run(gathering.add_all(raws))
    return gathering.answer(at, mark)


def test_rows_share_the_names_of_their_members() -> None:
    """JSON has a text of its own for each name of each row. That was half of the memory of a list."""
    raws = [json.loads(f'{{"client_id": "c{nth}", "notifier": {{"max_concurrent": 8}}}}') for nth in range(2)]
    first, second = _gathered(None, *raws, at=1.0).rows
    assert {id(name) for name in first} == {id(name) for name in second}
    ours: list[Any] = [first["notifier"], second["notifier"]]
    assert len({id(name) for section in ours for name in section}) == 1


def test_what_did_not_change_is_the_same_object() -> None:
    """A refresh that finds nothing changed gives the last answer itself, one that finds little the other rows."""
    shop, wiki = ({"client_id": name, "backchannel_logout_uri": HOOK} for name in ("shop", "wiki"))
    last = _gathered(None, shop, wiki, {"client_id": 1}, at=1.0, mark="a")
    assert _gathered(last, {**shop}, {**wiki}, {"client_id": 1}, at=2.0, mark="a") is last
    newer = _gathered(last, {**shop, "subject_type": "pairwise"}, {**wiki}, {"client_id": 1}, at=2.0, mark="a")
    assert newer.at == 2.0
    assert newer.rows[0]["subject_type"] == "pairwise"
    assert newer.rows[1] is last.rows[1]
    assert len(_gathered(last, {**shop}, at=2.0).rows) == 1
    remarked = _gathered(last, {**shop}, {**wiki}, {"client_id": 1}, at=2.0, mark="b")
    assert (remarked.rows, remarked.mark) == (last.rows, "b")


def test_a_client_that_comes_twice_counts_once() -> None:
    """Pages may shift while they are read."""
    answer = _gathered(None, {"client_id": "shop"}, {"client_id": "wiki"}, {"client_id": "shop"}, at=1.0)
    assert [row["client_id"] for row in answer.rows] == ["shop", "wiki"]


async def test_a_row_that_came_before_is_judged_once() -> None:
    """Also if it has more than is kept: secrets, other metadata, or settings that no list may say."""
    raw = {
        "client_id": "shop", "backchannel_logout_uri": HOOK, "client_secret": "hunter2", "jwks": {"keys": []},
        "notifier": {"headers": {"a": "b"}, "typ": "JWT"},
    }  # fmt: skip
    first = Gathering(None)
    await first.add_all([raw])
    last = first.answer(0.0)
    assert clean(raw, "[0]", last.rows[0]) is last.rows[0]
    again = Gathering(last)
    await again.add_all([dict(raw)])
    assert again.answer(1.0) is last
