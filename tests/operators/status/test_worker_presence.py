"""Test vanished workers and clock differences by the announcements of workers."""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter

from notifier.configuration.clients.client_rows import SourceState
from notifier.model.errors import QueueUnavailable
from notifier.model.trouble import TroubleKind
from notifier.operators.status.reload_request import (
    RELOAD_REQUEST,
    ReloadRequest,
    ReloadResult,
    ReloadResults,
    WorkerReload,
    make_reload_act,
)
from notifier.operators.status.service_status import status_of, troubles_of
from notifier.operators.status.worker_presence import KEPT_SECONDS, MAX_WORKERS, WorkerPresence
from notifier.operators.status.worker_requests import RequestHandler, RequestKind, WorkerRequest
from tests.operators.status.test_service_status import worker as state_of


class Worker:
    """A worker with clocks that the test sets. `ahead` is the offset of its wall clock."""

    def __init__(self, name: str, moments: list[float], ahead: float = 0.0) -> None:
        self.name = name
        self.ahead = ahead
        self.presence = WorkerPresence(name, f"id-{name}", lambda: 1e9 + moments[0] + self.ahead, lambda: moments[0])


class Group:
    """Workers that share a queue; each receives all announcements."""

    def __init__(self, *names: str) -> None:
        self.now = [0.0]
        self.workers: dict[str, Worker] = {}
        for name in names:
            self.start(name)

    def start(self, name: str, ahead: float = 0.0) -> None:
        """Start a worker."""
        self.workers[name] = Worker(name, self.now, ahead)

    def rounds(self, seconds: float, *hanging: str) -> None:
        """Let time pass. All other workers announce themselves every ten seconds."""
        for _ in range(round(seconds / 10)):
            self.now[0] += 10
            running = [worker for name, worker in self.workers.items() if name not in hanging]
            for announced in [worker.presence.document() for worker in running]:
                for worker in running:
                    worker.presence.on_announcement(announced)

    async def stop(self, name: str) -> None:
        """Have a worker announce its stop."""
        worker = self.workers.pop(name)
        await worker.presence.leave()
        for other in self.workers.values():
            other.presence.on_announcement(worker.presence.document())

    def announced(self, name: str, *, leaving: bool = False) -> None:
        """Deliver an announcement from a worker outside the group to the first worker."""
        document = {"v": 1, "worker": name, "at": 1e9, "leaving": leaving}
        self.workers["a:1"].presence.on_announcement(json.dumps(document).encode())

    def vanished(self, at: str = "a:1") -> list[str]:
        """Return the vanished workers that this worker reports."""
        return [name for name, _ in self.workers[at].presence.list_vanished()]


def test_hung_worker_is_reported_for_an_hour() -> None:
    """From 30 s after its last announcement, with that time; the status names it."""
    group = Group("a:1", "b:1", "c:1")
    group.rounds(60)
    group.rounds(20, "b:1")
    assert group.vanished() == []
    group.rounds(10, "b:1")
    assert group.workers["c:1"].presence.list_vanished() == [("b:1", 1e9 + 60)]
    [trouble] = group.workers["a:1"].presence.troubles()
    assert (trouble.kind, trouble.subject, trouble.since) == (TroubleKind.WORKER_VANISHED, "b:1", 1e9 + 60)
    group.rounds(KEPT_SECONDS - 30, "b:1")
    assert group.vanished() == ["b:1"]
    group.rounds(10, "b:1")
    assert group.vanished() == []


def test_resumed_worker_is_no_longer_reported() -> None:
    """Nor does it report the others, whose announcements it missed."""
    group = Group("a:1", "b:1")
    group.rounds(60)
    group.rounds(300, "b:1")
    group.rounds(10)
    assert group.vanished() == []
    assert group.vanished(at="b:1") == []


@pytest.mark.parametrize("pods", [0, MAX_WORKERS + 1])
async def test_worker_that_announced_its_stop_is_not_reported(pods: int) -> None:
    """A replacement on its host does not hide another hung worker, also after many pods were replaced.

    The host names of pods do not return and take bounded memory.
    """
    group = Group("a:1", "b:1", "b:2")
    group.rounds(30)
    for number in range(pods):
        for leaving in (False, True):
            group.announced(f"pod-{number}:1", leaving=leaving)
    await group.stop("b:2")
    group.rounds(20, "b:1")
    group.start("b:3")
    group.rounds(60, "b:1")
    assert group.vanished() == ["b:1"]


def test_worker_replaced_on_its_host_is_not_reported() -> None:
    """A supervisor started a replacement for a killed worker; it replaces only one."""
    group = Group("a:1", "b:1", "b:2")
    group.rounds(30)
    group.start("b:3")
    group.rounds(60, "b:1")
    assert group.vanished() == []
    group.rounds(60, "b:1", "b:2")
    assert group.vanished() == ["b:2"]


def test_no_worker_vanishes_while_the_side_channel_is_silent() -> None:
    """As during a resource alarm of the broker: a worker does not receive its own announcement either."""
    group = Group("a:1", "b:1")
    group.rounds(30)
    group.now[0] += 600
    assert group.vanished() == []
    group.rounds(10, "b:1")
    assert group.vanished() == []


def test_a_worker_that_answers_has_not_vanished() -> None:
    """Whatever another worker reports of it."""
    group = Group("a:1", "b:1")
    group.rounds(30)
    group.rounds(60, "b:1")
    troubles = {"a:1": [*group.workers["a:1"].presence.troubles()]}
    states = [state_of(name, troubles=troubles.get(name, [])) for name in group.workers]
    assert troubles_of(status_of({}, states, now=1e9 + 90)) == []


@pytest.mark.parametrize("ahead", [600.0, -600.0])
def test_one_clock_of_three_differs(ahead: float) -> None:
    """The worker reports its own clock, the others report nothing. The report ends within a minute of a correction."""
    group = Group("a:1", "b:1")
    group.start("c:1", ahead)
    group.rounds(20)
    assert [round(worker.presence.clock_offset) for worker in group.workers.values()] == [0, 0, ahead]
    assert not list(group.workers["a:1"].presence.troubles())
    [trouble] = group.workers["c:1"].presence.troubles()
    assert (trouble.kind, trouble.subject) == (TroubleKind.CLOCK, "c:1")
    assert f"is 10 min {'ahead of' if ahead > 0 else 'behind'} those of the other workers" in trouble.text
    group.workers["c:1"].ahead = 0.0
    group.rounds(60)
    assert [worker.presence.clock_offset for worker in group.workers.values()] == [0, 0, 0]


def test_of_two_clocks_each_reports_the_other() -> None:
    """The majority is unknown."""
    group = Group("a:1")
    group.start("b:1", 600.0)
    group.rounds(20)
    assert [worker.presence.clock_offset for worker in group.workers.values()] == [-600, 600]
    assert Group("a:1").workers["a:1"].presence.clock_offset == 0


@pytest.mark.parametrize("members", [{}, {"v": 2}, {"at": "now"}, {"worker": "x" * 2000}, {"at": 1e300}])
def test_unreadable_announcement_has_no_effect(members: dict[str, object]) -> None:
    """For example of a later release."""
    group = Group("a:1")
    group.workers["a:1"].presence.on_announcement(b"[]" if not members else json.dumps(
        {"v": 1, "worker": "b:1", "at": 1e9, "leaving": False} | members
    ).encode())  # fmt: skip
    group.rounds(60)
    assert group.vanished() == []


def test_invented_workers_take_bounded_memory() -> None:
    """The first thousand are kept."""
    group = Group("a:1")
    group.rounds(10)
    for number in range(2 * MAX_WORKERS):
        group.announced(f"x:{number}")
    group.rounds(60)
    assert len(group.vanished()) == MAX_WORKERS


def test_running_worker_displaces_a_vanished_one() -> None:
    """It is watched too, however many pods were killed within the hour."""
    group = Group("a:1")
    group.rounds(10)
    for number in range(MAX_WORKERS):
        group.announced(f"pod-{number}:1")
    group.rounds(60)
    group.start("b:1")
    group.rounds(30)
    assert len(group.vanished()) == MAX_WORKERS - 1
    group.rounds(60, "b:1")
    assert "b:1" in group.vanished()


async def test_the_stop_is_announced_at_once() -> None:
    """Once; `leave` returns after it was sent, and does not wait where nothing is announced."""
    presence = WorkerPresence("a:1", "id-a", lambda: 1e9, lambda: 0.0)
    await presence.leave()
    presence = WorkerPresence("a:1", "id-a", lambda: 1e9, lambda: 0.0)
    assert json.loads(await presence.next_announcement())["leaving"] is False
    following = asyncio.create_task(presence.next_announcement())
    leaving = asyncio.create_task(presence.leave())
    assert json.loads(await following)["leaving"] is True
    assert not leaving.done()
    following = asyncio.create_task(presence.next_announcement())
    await leaving
    assert not following.done()
    following.cancel()


# ── the number of workers ──


def counts(group: Group) -> list[int]:
    """Return how many workers each worker counts."""
    return [worker.presence.count for worker in group.workers.values()]


def test_worker_counts_after_its_first_announcement() -> None:
    """The others count it at once. It knows their number after a round, also as the only worker."""
    group = Group("a:1")
    assert counts(group) == [0]
    group.rounds(10)
    assert counts(group) == [0]
    group.rounds(10)
    assert counts(group) == [1]
    group.start("b:1")
    group.rounds(10)
    assert counts(group) == [2, 0]
    group.rounds(10)
    assert counts(group) == [2, 2]


def test_workers_of_one_name_are_counted_apart() -> None:
    """As containers that share a host name, in which each process has the same number."""
    group = Group("a:1", "b:1")
    group.workers["b:1"].presence = WorkerPresence("a:1", "id-other", lambda: 1e9, lambda: group.now[0])
    group.rounds(20)
    assert counts(group) == [2, 2]


def test_silent_worker_counts_for_three_rounds() -> None:
    """An older release announces itself every ten seconds: it counts, too."""
    group = Group("a:1", "b:1")
    group.announced("old:1")
    group.rounds(20)
    assert counts(group) == [3, 2]
    group.announced("old:1")
    group.rounds(10)
    group.announced("old:1")
    group.rounds(20, "b:1")
    assert group.workers["a:1"].presence.count == 3
    group.rounds(10, "b:1")
    assert group.workers["a:1"].presence.count == 1


def test_stopped_worker_counts_until_its_messages_are_in_the_queue_again() -> None:
    """It announces its stop until it ends; three seconds later it does not count."""
    group, found = Group("a:1"), list[int]()
    group.rounds(20)
    presence = group.workers["a:1"].presence
    group.announced("b:1")
    for leaving in (True, True, True, False, False):
        if leaving:
            group.announced("b:1", leaving=True)
        group.now[0] += 2
        presence.on_announcement(presence.document())
        found.append(presence.count)
    assert found == [2, 2, 2, 1, 1]
    assert group.vanished() == []


async def test_forged_stop_is_contradicted() -> None:
    """By the worker itself, within a second. It counts all the time."""
    group = Group("a:1", "b:1")
    group.rounds(20)
    forged = json.dumps({"v": 1, "id": "id-b:1", "worker": "b:1", "at": 1e9, "leaving": True}).encode()
    for _ in range(2):
        await group.workers["b:1"].presence.next_announcement()
    contradiction = asyncio.create_task(group.workers["b:1"].presence.next_announcement())
    for worker in group.workers.values():
        worker.presence.on_announcement(forged)
    group.now[0] += 2
    group.workers["a:1"].presence.on_announcement(await contradiction)
    group.rounds(10)
    assert counts(group) == [2, 2]


async def test_forged_announcements_do_not_shorten_the_first_round() -> None:
    """They have the id of the worker that starts. It waits for the announcements of the others."""
    group = Group("a:1")
    presence = group.workers["a:1"].presence
    announcement = await presence.next_announcement()
    for now, count in ((0.1, 0), (1.4, 0), (1.5, 1)):
        group.now[0] = now
        presence.on_announcement(announcement)
        presence.on_announcement(announcement)
        assert presence.count == count


def test_gap_hides_no_worker() -> None:
    """After a broker alarm all workers count until they had the time to announce themselves."""
    group = Group("a:1", "b:1", "c:1")
    group.rounds(20)
    group.now[0] += 600
    group.rounds(10, "b:1", "c:1")
    assert group.workers["a:1"].presence.count == 3
    group.rounds(30, "c:1")
    assert group.workers["a:1"].presence.count == 2
    assert group.vanished() == []


def test_invented_workers_give_way_once_they_do_not_count() -> None:
    """A worker that starts counts, although they have not vanished."""
    group = Group("a:1")
    group.rounds(20)
    for number in range(MAX_WORKERS):
        group.announced(f"x:{number}")
    presence = group.workers["a:1"].presence
    for _ in range(4):
        group.now[0] += 5
        presence.on_announcement(presence.document())
    assert presence.count == 1
    group.announced("b:1")
    assert presence.count == 2


def test_invented_workers_cost_no_search_each() -> None:
    """A table full of invented workers is examined once a second, whatever arrives meanwhile."""
    group, calls = Group("a:1"), list[str]()
    group.rounds(20)
    group.now[0] += 1
    sys.setprofile(lambda _frame, event, _arg: calls.append(event))
    try:
        for number in range(3 * MAX_WORKERS):
            group.announced(f"x:{number}", leaving=number % 3 == 0)
    finally:
        sys.setprofile(None)
    assert len(calls) < 100 * 3 * MAX_WORKERS
    assert group.workers["a:1"].presence.count == 1 + MAX_WORKERS


# ── Requests to workers: each is answered, whatever it is, and a reload is taken only if all workers took all of it


TAKEN = ReloadResult(problems=(), restart_needed=(), issuers=1, clients=7, sources=())


def any_kind(name: str) -> RequestKind:
    """Return a kind of request with any members."""
    return RequestKind(name=name, members=TypeAdapter(dict[str, Any]), result=TypeAdapter(dict[str, Any]))


def asked(name: str, **members: object) -> bytes:
    """Return an encoded request."""
    return json.dumps({"v": 1, "asks": {"name": name, "who": "alice@host", "members": members}}).encode()


async def answer_to(request: bytes) -> dict[str, Any]:
    """Return the answer of a worker that supports reload and fails at another request."""
    seen: list[ReloadRequest] = []

    async def carry_out(reload: ReloadRequest) -> ReloadResult:
        seen.append(reload)
        return TAKEN if reload.accept_loss else ReloadResult(
            problems=["3 of 7 clients"], restart_needed=["queue"], issuers=1, clients=7, sources=()
        )  # fmt: skip

    async def fail(request: WorkerRequest) -> Mapping[str, Any]:
        raise RuntimeError(request.members["text"])

    handler = RequestHandler("vm:1", {RELOAD_REQUEST: make_reload_act(carry_out), any_kind("fail"): fail}, lambda: None)
    answer = json.loads(await handler.carry_out(request))["answers"]
    assert answer["worker"] == "vm:1"
    assert all(reload.who == "alice@host (claimed)" for reload in seen)  # anyone who may use the queue can send it
    assert isinstance(answer, dict)
    return answer


async def test_loss_is_accepted_only_by_explicit_true() -> None:
    """Any value other than true is refused."""
    for request in (asked("reload"), asked("reload", accept_loss=False)):
        assert (await answer_to(request))["result"]["problems"] == ["3 of 7 clients"]
    for value in ("true", 1):
        assert "cannot read the request" in (await answer_to(asked("reload", accept_loss=value)))["problem"]
    assert (await answer_to(asked("reload", accept_loss=True)))["result"]["problems"] == []


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (asked("of-a-later-release"), "does not support the request 'of-a-later-release'"),
        (b"\xff", "cannot read the request"),
        (b'{"v": 2}', "cannot read the request"),
        (asked("fail", text="hush-hush"), "it failed: RuntimeError"),
    ],
)
async def test_failed_request_is_answered(request_: bytes, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The text of an internal error stays in the worker, since it may contain secrets."""
    answer = await answer_to(request_)
    assert problem in answer["problem"]
    assert "hush-hush" not in json.dumps(answer)
    assert "hush-hush" not in capsys.readouterr().out


def test_reload_succeeds_only_if_every_worker_applied_it_whole() -> None:
    """Not accepted: no worker, a silent worker, a worker that keeps the old configuration, clients held back."""
    well = WorkerReload(worker="vm:1", version="1", result=TAKEN)
    silent = ReloadResults(seen=2, workers=[well])
    old = WorkerReload(worker="vm:2", version="0", result=None, problem="does not support the request 'reload'")
    source = SourceState(name="keycloak", kind="keycloak", up=False, age=7.0, problem="held back: 3 of 7 clients")
    stale = WorkerReload(
        worker="vm:3",
        version="1",
        result=ReloadResult(problems=(), restart_needed=(), issuers=1, clients=7, sources=[source]),
    )
    assert ReloadResults(seen=1, workers=[well]).is_applied
    for reloads in (
        ReloadResults(seen=0, workers=[]),
        silent,
        ReloadResults(seen=2, workers=[well, old]),
        ReloadResults(seen=1, workers=[stale]),
    ):
        assert not reloads.is_applied
    [shown] = ReloadResults(seen=1, workers=[stale]).document()["workers"]["each"]
    assert (shown["taken"], shown["problems"]) == (False, ["registry source keycloak: held back: 3 of 7 clients"])


async def test_unreachable_queue_is_no_internal_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Like a request during a suspension, it is answered, and the connection logs it."""

    async def act(_request: WorkerRequest) -> Mapping[str, Any]:
        raise QueueUnavailable("not connected")

    answer = json.loads(await RequestHandler("vm:1", {any_kind("act"): act}, lambda: None).carry_out(asked("act")))[
        "answers"
    ]
    assert answer["problem"] == "the queue is unreachable: not connected"
    assert "request_failed" not in "".join(capsys.readouterr())
