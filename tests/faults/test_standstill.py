"""A worker that was frozen does not charge clients for it: no circuit opens."""

import asyncio
import signal

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.rig import CLIENTS, Rig, answers
from tests.system.worker_process import worker

ANSWER = 0.1  # seconds: so that some attempts are always in flight, and six seconds of events are few


@pytest.mark.fault("worker", "frozen by SIGSTOP for 6 s, past the deadline of every attempt under way")
@pytest.mark.timeout(600)
async def test_frozen_worker_opens_no_circuit(made: Rig, form: Form[int], record: Record) -> None:
    """Answers were unread or deadlines passed meanwhile, and the clients are not charged for it."""
    times = form(1, 5)
    made.clients.judge = answers(0, ANSWER)  # a client that fails would rightly rest
    async with worker(made.site) as running:
        publishing = asyncio.create_task(made.publisher.publish(range(form(120, 300) * times), rate=30))
        for _ in range(times):
            await made.more(100)
            running.send(signal.SIGSTOP)
            await asyncio.sleep(6)
            running.send(signal.SIGCONT)
        await publishing
        await made.until_settled()
        rests = {name: await running.metric("deferrals_total", client_id=name, cause="circuit") for name in CLIENTS}
        assert await running.stop() == 0
    assert rests == dict.fromkeys(CLIENTS, 0)
    record(await made.account(cause="under way in the frozen worker"), times=times)
