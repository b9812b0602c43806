"""A pause is planned, requested of workers of several releases, and answered with those that do not apply it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from notifier.messages import worker
from notifier.model.client import Client, RetryPolicy
from notifier.model.errors import InputIssue, QueueUnavailable
from notifier.model.message import PARKED, Lane, Message
from notifier.model.pauses import Pause
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.operators.deliveries.pause_request import PauseMembers, PauseRequests, PauseResult
from notifier.operators.deliveries.waiting_filter import read_waiting
from notifier.operators.status.lifetime import lifetime_in_pause
from notifier.operators.status.pause_watch import READ_PAUSES, PauseWatch
from notifier.operators.status.worker_requests import Act, RequestHandler, RequestKind
from notifier.queues.queue_state import WorkerAnswers
from notifier.queues.sqlite.options import SqliteOptions
from notifier.queues.sqlite.queue import SqliteQueue
from tests.delivery import worker_harness
from tests.delivery.test_operator_pauses import pause

ISS = "https://op.example"
SHOP = (ISS, "shop")
NOW = 1_790_000_000.0


class Workers(SqliteQueue):
    """A queue whose workers answer by these functions. `silent`: how many do not answer."""

    acts: Mapping[str, Mapping[RequestKind, Act]]
    silent = 0

    async def request(self, document: bytes, within: float) -> WorkerAnswers:
        """Implement the port."""
        answers = [
            await RequestHandler(worker, acts, self.side_channel.on_malformed).carry_out(document)
            for worker, acts in self.acts.items()
        ]
        return WorkerAnswers(seen=len(answers) + self.silent, answers=answers)


def shop() -> Pause:
    """A pause of an hour."""
    return Pause(id="a", iss=ISS, client_id="shop", who="alice", reason="deploy", since=NOW, until=NOW + 3600)


def requests_on(queue: Workers, registry: Registry | None = None) -> PauseRequests:
    """The requests of bob."""
    return PauseRequests(queue=queue, registry=registry or Registry(), who="bob", clock=lambda: NOW)


async def pause_on(queue: Workers, *pauses: Pause, registry: Registry | None = None) -> PauseResult:
    """Make these pauses, by default one of the client."""
    made = pauses or (shop(),)
    return await requests_on(queue, registry).change([each.key for each in made], made)


def registry_with_follower(**policy: float) -> Registry:
    """`shop`, and `shop-us`, which follows it."""
    leader = Client(iss=ISS, client_id="shop", backchannel_logout_uri="https://shop.example/out")
    follower = replace(leader, client_id="shop-us", follows="shop", retry=RetryPolicy(**policy))
    return Registry(clients={ISS: {"shop": leader, "shop-us": follower}})


@pytest.fixture
def queue(tmp_path: Path) -> Workers:
    """A worker of this release and one of a former, which does not know the request."""
    queue = Workers(SqliteOptions(path=tmp_path / "queue.db"))
    watch = PauseWatch(queue, Registry, lambda _: None, lambda: NOW)
    queue.acts = {"new": {READ_PAUSES: watch.act}, "old": {}}
    return queue


async def test_worker_of_a_former_release_is_named(queue: Workers) -> None:
    """By the answer to a pause, to a resume, and by the list, of which all then exit with 1."""
    await queue.open()
    results = [
        (await pause_on(queue)).workers,
        (await requests_on(queue).list_pauses(lambda _: True, counts=False))[1],
        (await requests_on(queue).change([SHOP])).workers,
    ]
    for workers in results:
        assert (workers.seen, workers.applied) == (2, ["new"])
        [late] = workers.late
        assert (late["worker"], "does not support the request 'pauses'" in late["problem"]) == ("old", True)
    await queue.close()


async def test_silent_worker_does_not_apply_it(queue: Workers) -> None:
    """It is counted, and has no name."""
    queue.acts, queue.silent = {"new": queue.acts["new"]}, 1
    await queue.open()
    workers = (await pause_on(queue)).workers
    assert (workers.seen, workers.applied, workers.late) == (2, ["new"], [])
    assert [*(await queue.register.read()).in_force(NOW)] == [(ISS, "shop")]
    await queue.close()


async def test_worker_without_the_document_is_named(queue: Workers) -> None:
    """It has lost the queue, and may still call the client."""

    class Unreadable:
        async def read(self) -> None:
            raise QueueUnavailable("away")

    class Other:
        register = Unreadable()

    watch = PauseWatch(Other(), Registry, lambda _: None, lambda: NOW)  # type: ignore[arg-type]
    queue.acts = {"cut off": {READ_PAUSES: watch.act}}
    await queue.open()
    [late] = (await pause_on(queue)).workers.late
    assert late == {"worker": "cut off", "problem": "it cannot read the pauses: away"}
    await queue.close()


async def test_worker_by_whose_clock_the_pause_is_over_does_not_apply_it(queue: Workers) -> None:
    """It calls the client. The JSON has the difference of the clocks."""
    watch = PauseWatch(queue, Registry, lambda _: None, lambda: NOW + 7200.0)
    queue.acts = {"ahead": {READ_PAUSES: watch.act}}
    await queue.open()
    result = await pause_on(queue)
    assert result.document()["workers"] == {
        "seen": 1, "applied": [], "late": [{"worker": "ahead", "problem": "by its clock the pause is over"}],
        "clock_difference": 7200.0,
    }  # fmt: skip
    await queue.close()


async def test_time_in_which_workers_answer_is_no_difference_of_the_clocks(queue: Workers) -> None:
    """Such as the seconds of patience for a silent worker."""
    watch = PauseWatch(queue, Registry, lambda _: None, lambda: NOW + 1.0)
    queue.acts = {"well": {READ_PAUSES: watch.act}}
    await queue.open()
    requests = copy_record(requests_on(queue), clock=count(NOW, 2.0).__next__)
    _, workers = await requests.list_pauses(lambda _: True, counts=False)
    assert workers.clock_difference == 0.0
    await queue.close()


# ── followers ──


def test_pause_is_no_longer_than_any_of_its_clients_permits(queue: Workers) -> None:
    """The mistake names the follower. Without it the pause is made."""
    requests = requests_on(queue, registry_with_follower(max_paused=3600.0))
    members = PauseMembers(client_id="shop", for_="2h", reason="x")
    pauses = requests.plan(SHOP, members)
    assert not isinstance(pauses, InputIssue)
    assert [each.client_id for each in pauses] == ["shop"]
    mistake = requests.plan(SHOP, {**members, "followers": True})
    assert isinstance(mistake, InputIssue)
    assert (mistake.path, "within 1h, the max_paused of shop-us" in mistake.text) == ("for", True)


@pytest.mark.parametrize("reason", ["", " ", "x" * 201, "a\tb"])
async def test_reason_is_required(reason: str, queue: Workers) -> None:
    """Blanks are none."""
    mistake = await requests_on(queue).pause(SHOP, PauseMembers(client_id="shop", for_="2h", reason=reason))
    assert isinstance(mistake, InputIssue)
    assert (mistake.path, "1 to 200 characters" in mistake.text) == ("reason", True)


async def test_followers_that_stay_as_they_are_are_named(queue: Workers) -> None:
    """They are still called after a pause of their leader, and still paused after its resume."""
    await queue.open()
    registry = registry_with_follower()
    pause, resume = partial(pause_on, queue, registry=registry), requests_on(queue, registry)
    follower = copy_record(shop(), id="b", client_id="shop-us")
    assert (await pause(shop())).followers == ["shop-us"]
    assert (await pause(shop(), follower)).followers == []
    assert (await pause(copy_record(shop(), id="c"))).followers == []  # still paused
    assert (await resume.change([SHOP])).followers == ["shop-us"]
    assert (await resume.change([follower.key])).followers == []
    await queue.close()


# ── what may expire ──


@pytest.mark.parametrize(("max_age", "expires"), [(600.0, False), (61.5, True)])
async def test_parked_delivery_of_a_paused_client_ages_until_it_leaves_its_bucket(
    max_age: float, monkeypatch: pytest.MonkeyPatch, *, expires: bool
) -> None:
    """When the probe is overdue. If it has expired by then, it was predicted; else it waits for the end."""
    monkeypatch.setattr(worker, "TICK_SECONDS", 0.0)
    shop = worker_harness.client("shop", retry=RetryPolicy(sub_only_max_age=max_age))
    async with worker_harness.running(worker_harness.WorkerHarness(shop)) as harness:
        harness.receivers.behaviours["shop"] = worker_harness.answers(503)
        await harness.acked(harness.event("shop", id="first"))
        await harness.acked(harness.event("shop", id="second", sid=None))
        [parked] = [sent for name, sent in harness.queue.published if name == PARKED]
        message = Message(lane=Lane.RETRIES, body=parked.body, kind=parked.kind, tag=None)
        summary = read_waiting(message, partial(lifetime_in_pause, registry=harness.registry, now=harness.now))
        harness.pauses.in_force = {(worker_harness.ISS, "shop"): pause()}
        paused_at = harness.now
        await harness.pass_time(62.5)
        harness.worker.scheduler.deferrals.request_overdue_fetches()  # each minute
        await harness.until(lambda: not any(harness.queue.buckets.values()))
        await harness.settled()
        assert bool(harness.dead()) is expires
        assert summary.expires is not None
        assert (summary.expires < paused_at + 3600.0) is expires
