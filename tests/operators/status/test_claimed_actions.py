"""Test the audit lines of commands: workers log them with a claimed name."""

import json
from typing import Any

import pytest

from notifier.operators.status.claimed_actions import (
    MAX_LINE_CHARACTERS,
    MAX_LINES_PER_MINUTE,
    RECORD_ACTION,
    ActionRecorder,
)
from notifier.operators.status.worker_requests import RequestRefused, WorkerRequest
from notifier.telemetry.audit import MAX_KINDS, recent_lines, write_audit


def claim(who: str, action: object = "retried_now", **details: object) -> WorkerRequest:
    """Return the request of a command."""
    return WorkerRequest(kind=RECORD_ACTION, who=who, members={"action": action, "details": details})


@pytest.mark.parametrize("who", ["ops-token", "ops-token (claimed)"])
async def test_claimed_name_is_marked(who: str) -> None:
    """A command cannot use the name of a token."""
    await ActionRecorder().act(claim(who, "dead_letters_discarded", done=2, wanted={"client_id": "shop"}))
    line = recent_lines()[-1]
    assert (line["action"], line["who"], line["done"]) == ("dead_letters_discarded", "ops-token (claimed)", 2)


@pytest.mark.parametrize(
    ("action", "details"),
    [
        ("log_level", {}),
        ("retried_now", {"at": "soon"}),
        ("retried_now", {"audit": False}),
        ("retried_now", {"unfinished": MAX_LINE_CHARACTERS * "x"}),
        ("retried_now", {"unfinished": json.loads("[" * 150 + "]" * 150)}),
        ("retried_now", {"unfinished": float("nan")}),
        ("retried_now", {"action_id": 3}),
        ("retried_now", {"action_id": ["a1"]}),
        ("retried_now", {"self": "x"}),
        ("retried_now", {"method_name": "x"}),  # it would be kept without being logged
    ],
)
async def test_other_lines_are_refused(action: object, details: dict[str, Any]) -> None:
    """Anyone who may use the queue can send a request: it has a known action and cannot replace members of the line."""
    before = recent_lines()
    with pytest.raises(RequestRefused):
        await ActionRecorder().act(claim("mallory", action, **details))
    assert recent_lines() == before


async def test_claimed_names_displace_no_proven_ones() -> None:
    """A command may claim any number of names."""
    write_audit("reload_asked", who="displaced by none")
    for number in range(2 * MAX_KINDS):
        await ActionRecorder().act(claim(f"user {number}"))
    assert [line["action"] for line in recent_lines() if line["who"] == "displaced by none"] == ["reload_asked"]


async def test_lines_of_commands_are_limited() -> None:
    """Anyone who may use the queue can send them. Further ones are refused, so that their command writes them."""
    now = 600.0
    recorder = ActionRecorder(lambda: now)
    for _ in range(MAX_LINES_PER_MINUTE):
        await recorder.act(claim("mallory"))
    for _ in range(2):
        with pytest.raises(RequestRefused, match="120 lines of commands a minute"):
            await recorder.act(claim("sre"))
    now += 60.0
    await recorder.act(claim("sre"))
    assert recent_lines()[-1]["who"] == "sre (claimed)"
