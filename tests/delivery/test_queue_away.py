"""While the queue is unreachable, deliveries that need nothing from it go on: deferred ones start when they are due."""

from tests.delivery.stage import Stage, answers, client, running


async def test_what_was_put_off_is_made_without_the_queue() -> None:
    """More deliveries come than the client's rate permits; they start at that rate. A retry waits, because it counts an
    attempt.

    It came due meanwhile, so it returns as soon as possible.
    """
    stage = Stage(client("shop", per_second=20), client("down"))
    stage.receivers.behaviours["down"] = answers(503)
    stage.now += 1  # a worker that starts has no token but one
    async with running(stage):
        stage.queue.open.clear()
        stage.event("down", id="down")
        for number in range(40):
            stage.event("shop", sid=str(number), id=str(number))
        await stage.until(lambda: stage.told().count("shop") == 20)
        stage.now += 10
        await stage.until(lambda: stage.told().count("shop") == 40)
        assert (stage.told().count("down"), stage.queue.published) == (1, [])
        stage.queue.open.set()
        await stage.until(lambda: len(stage.queue.acked) == 41)
    assert [queue for queue, _ in stage.queue.published] == ["delay.1s"]
