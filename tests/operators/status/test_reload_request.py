"""Requests to workers: each is answered, whatever it is, and a reload is taken only if all workers took all of it."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from notifier.configuration.clients.registry_refresh import SourceState
from notifier.model.errors import QueueUnavailable
from notifier.operators.status.reload_request import RELOAD, Reload, ReloadResult, Reloads, WorkerReload, act_of
from notifier.operators.status.worker_requests import RequestHandler, WorkerRequest

TAKEN = ReloadResult(problems=(), restart_needed=(), issuers=1, clients=7, sources=())


def asked(name: str, **members: object) -> bytes:
    """A request as it travels."""
    return json.dumps({"v": 1, "asks": {"name": name, "who": "alice@host", "members": members}}).encode()


async def answer_to(request: bytes) -> dict[str, Any]:
    """What a worker answers that can reload, and that fails at another request."""
    seen: list[Reload] = []

    async def carry_out(reload: Reload) -> ReloadResult:
        seen.append(reload)
        return TAKEN if reload.accept_loss else ReloadResult(
            problems=["3 of 7 clients"], restart_needed=["queue"], issuers=1, clients=7, sources=()
        )  # fmt: skip

    async def fail(request: WorkerRequest) -> Mapping[str, Any]:
        raise RuntimeError(request.members["text"])

    desk = RequestHandler("vm:1", {RELOAD: act_of(carry_out), "fail": fail})
    answer = json.loads(await desk.carry_out(request))["answers"]
    assert answer["worker"] == "vm:1"
    assert all(reload.who == "alice@host" for reload in seen)
    assert isinstance(answer, dict)
    return answer


async def test_a_loss_is_accepted_only_where_it_is_said_so() -> None:
    """Any other value than true is none."""
    for members in ({}, {"accept_loss": False}, {"accept_loss": "false"}, {"accept_loss": 1}):
        assert (await answer_to(asked(RELOAD, **members)))["said"]["problems"] == ["3 of 7 clients"]
    assert (await answer_to(asked(RELOAD, accept_loss=True)))["said"]["problems"] == []


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (asked("of-a-later-release"), "knows no request 'of-a-later-release'"),
        (b"\xff", "cannot read the request"),
        (b'{"v": 2}', "cannot read the request"),
        (asked("fail", text="hush-hush"), "it failed with RuntimeError"),
    ],
)
async def test_what_cannot_be_done_is_answered_too(
    request_: bytes, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the text of a fault, which may quote anything, stays here."""
    answer = await answer_to(request_)
    assert problem in answer["problem"]
    assert "hush-hush" not in json.dumps(answer)
    assert "hush-hush" not in capsys.readouterr().out


def test_taken_means_by_every_worker_and_in_every_part() -> None:
    """Nobody there, one that is silent, one that keeps the old, one that holds clients of a source back: not taken."""
    well = WorkerReload(worker="vm:1", version="1", result=TAKEN)
    silent = Reloads(seen=2, workers=[well])
    old = WorkerReload(worker="vm:2", version="0", result=None, problem="knows no request 'reload'")
    source = SourceState(name="keycloak", kind="keycloak", up=False, age=7.0, problem="held back: 3 of 7 clients")
    stale = WorkerReload(
        worker="vm:3",
        version="1",
        result=ReloadResult(problems=(), restart_needed=(), issuers=1, clients=7, sources=[source]),
    )
    assert Reloads(seen=1, workers=[well]).taken
    for reloads in (
        Reloads(seen=0, workers=[]),
        silent,
        Reloads(seen=2, workers=[well, old]),
        Reloads(seen=1, workers=[stale]),
    ):
        assert not reloads.taken
    [shown] = Reloads(seen=1, workers=[stale]).document()["workers"]["each"]
    assert (shown["taken"], shown["problems"]) == (False, ["registry source keycloak: held back: 3 of 7 clients"])


async def test_a_queue_that_is_unreachable_is_no_fault_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    """As for a request that waited while the worker was suspended: it is answered, and logged by the connection."""

    async def act(_request: WorkerRequest) -> Mapping[str, Any]:
        raise QueueUnavailable("not connected")

    answer = json.loads(await RequestHandler("vm:1", {"act": act}).carry_out(asked("act")))["answers"]
    assert answer["problem"] == "the queue is unreachable: not connected"
    assert "request_failed" not in "".join(capsys.readouterr())
