"""Copies, by a worker: told once while somebody is at it, and never taken for told when another attempt is wanted."""

from notifier.pipeline.duplicates import ARRIVAL
from notifier.pipeline.facts import EventTaken
from tests.pipeline.stage import Stage, answers, client, running

HOP = 2.0  # seconds until the first retry is back, by the default backoff and with the stage's jitter


async def put_off(stage: Stage) -> None:
    """An event whose one attempt has failed; its retry waits."""
    await stage.prove("shop")
    stage.receivers.behaviours["shop"] = answers(503)
    await stage.acked(stage.event("shop", id="e"))
    assert stage.queue.published[-1][0] == "delay.2s"
    del stage.receivers.behaviours["shop"]


def results(stage: Stage) -> list[str]:
    """What each event came to."""
    return [fact.result for fact in stage.facts if isinstance(fact, EventTaken)]


async def test_a_copy_is_none_while_its_retry_waits() -> None:
    """Nobody else can have it before it has left its delay queue."""
    async with running(Stage(client("shop"))) as stage:
        await put_off(stage)
        stage.now += HOP - 0.1
        await stage.acked(stage.event("shop", id="e"))
    assert stage.told() == ["shop"]
    assert results(stage) == ["accepted", "duplicate"]


async def test_an_event_is_attempted_whose_retry_another_worker_may_have_given_up() -> None:
    """Its retry does not come here when it is due, and nobody tells what became of it."""
    async with running(Stage(client("shop"))) as stage:
        await put_off(stage)
        stage.now += HOP + ARRIVAL
        await stage.acked(stage.event("shop", id="e"))
    assert stage.told() == ["shop", "shop"]
    assert results(stage) == ["accepted", "accepted"]


async def test_a_copy_that_comes_with_its_retry_waits_for_it() -> None:
    """It is told once, by the retry."""
    async with running(Stage(client("shop"))) as stage:
        await put_off(stage)
        stage.now += HOP
        stage.event("shop", id="e")
        stage.retake("delay.2s")
        await stage.until(lambda: len(stage.queue.acked) == 2)
        stage.now += ARRIVAL
        await stage.until(lambda: len(stage.queue.acked) == 3)
    assert stage.told() == ["shop", "shop"]
    assert results(stage) == ["accepted", "duplicate"]


async def test_a_copy_waits_in_vain_for_two_seconds_at_most() -> None:
    """Then it is attempted: the retry is with another worker."""
    async with running(Stage(client("shop"))) as stage:
        await put_off(stage)
        stage.now += HOP
        copy = stage.event("shop", id="e")
        stage.event("shop", id="other")
        await stage.until(lambda: len(stage.queue.acked) == 2)
        assert copy not in stage.queue.acked
        stage.now += ARRIVAL
        await stage.until(lambda: copy in stage.queue.acked)
    assert stage.told() == ["shop", "shop", "shop"]


async def test_a_copy_waits_for_a_confirm_that_is_later_than_the_retry() -> None:
    """Such as that of a park, which can be fetched at once. The copy is not attempted beside the retry."""
    async with running(Stage(client("shop"))) as stage:
        await stage.prove("shop")
        stage.receivers.behaviours["shop"] = answers(503)
        stage.queue.open.clear()
        stage.event("shop", id="e")
        await stage.until(lambda: stage.queue.refused == ["delay.2s"])
        del stage.receivers.behaviours["shop"]
        stage.now += HOP
        stage.event("shop", id="e")
        stage.event("shop", id="other", sid="other")
        await stage.until(lambda: len(stage.queue.acked) == 1)
        stage.queue.open.set()
        await stage.until(lambda: len(stage.queue.acked) == 2)
        stage.retake(stage.queue.published[-1][0])
        await stage.until(lambda: len(stage.queue.acked) == 3)
        stage.now += ARRIVAL
        await stage.until(lambda: len(stage.queue.acked) == 4)
    assert [claims["sid"] for _, claims in stage.receivers.posts] == ["s1", "other", "s1"]


async def test_an_answer_to_a_dead_letter_is_attempted_before_that_is_confirmed() -> None:
    """The letter can be seen before we know that it is durable: its event, sent again, must not be acked with it."""
    async with running(Stage(client("shop"))) as stage:
        stage.receivers.behaviours["shop"] = answers(403)
        stage.queue.open.clear()
        stage.event("shop", id="e")
        await stage.until(lambda: stage.queue.refused == ["dead"])
        stage.receivers.behaviours.clear()
        await stage.acked(stage.event("shop", id="e"))
        stage.queue.open.set()
        await stage.until(lambda: len(stage.queue.acked) == 2)
    assert stage.told() == ["shop", "shop"]
    assert len(stage.dead()) == 1


async def test_what_the_broker_gives_out_again_is_told_once() -> None:
    """After a loss of the connection its message comes a second time, while its dead letter waits for the queue."""
    async with running(Stage(client("shop"))) as stage:
        stage.receivers.behaviours["shop"] = answers(403)
        stage.queue.open.clear()
        stage.event("shop", id="e")
        await stage.until(lambda: stage.queue.refused == ["dead"])
        stage.event("shop", id="e", delivery_count=1)
        stage.queue.open.set()
        await stage.until(lambda: len(stage.queue.acked) == 2)
    assert stage.told() == ["shop"]
    assert len(stage.dead()) == 1
