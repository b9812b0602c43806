"""A worker is killed when a logout is durable and its sender has no answer yet. The sender repeats it.

Nothing is lost, and for each death a client is told of a session once more at most.
"""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.embedded_rig import embedded
from tests.faults.http_publisher import HttpPublisher
from tests.faults.rig import Rig, rig
from tests.faults.web_rig import SAME_SUB, WebFace, faced, most_told_again
from tests.system.worker_process import ROOT, worker

SIGN_OUT = "killed by SIGKILL when a `POST /v1/sign-outs` is durable and not answered; its sender repeats it"
TOKEN = "killed by SIGKILL when an upstream's logout token is durable and not answered; the upstream repeats it"
HELD = "held by a worker that was killed"
NTH = 100  # of a worker's requests is never answered; others are under way then, and deliveries too
RATE = 100.0


async def killed(made: Rig, sender: HttpPublisher, times: int) -> None:
    """Kill so many workers, one after the other. The last one ends everything."""
    program = str(ROOT / "tests" / "faults" / "killed_before_answer.py")
    publishing = asyncio.create_task(sender.publish(range(NTH * (times + 1)), rate=RATE))
    for _ in range(times):
        async with worker(made.site, command=[sys.executable, program, str(NTH)], ready=False) as running:
            assert await running.ended() < 0
    async with worker(made.site) as running:
        await publishing
        await made.until_settled()
        assert await running.stop() == 0
    assert len(sender.resent) >= times
    assert most_told_again(made.clients) <= times


async def signed_out(face: WebFace, times: int) -> None:
    """By an identity server whose users wait for a page."""
    await killed(face.made, face.signing_out, times)
    assert face.signing_out.pages == len(face.made.publisher.confirmed)


@pytest.mark.fault("worker", SIGN_OUT)
@pytest.mark.timeout(300)
async def test_sign_outs_on_rabbitmq(tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], tell: Tell) -> None:
    """Every answer that came at last has a page."""
    times = form(1, 10)
    async with rig(tmp_path, amqp_url, prefix) as made, faced(made, {}) as face:
        await signed_out(face, times)
        tell(await made.account(cause=HELD), times=times)


@pytest.mark.fault("embedded queue", SIGN_OUT)
@pytest.mark.timeout(300)
async def test_sign_outs_on_sqlite(tmp_path: Path, form: Form[int], tell: Tell) -> None:
    """The same."""
    times = form(1, 10)
    async with embedded(tmp_path) as made, faced(made, {}) as face:
        await signed_out(face, times)
        tell(await made.account(cause=HELD), times=times)


@pytest.mark.fault("upstream", TOKEN)
@pytest.mark.timeout(300)
async def test_tokens_on_rabbitmq(tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], tell: Tell) -> None:
    """The next worker has not seen the token; the event that it becomes has the same id."""
    times = form(1, 10)
    async with rig(tmp_path, amqp_url, prefix) as made, faced(made, {"login": SAME_SUB}) as face:
        await killed(made, face.upstreams["login"], times)
        tell(await made.account(cause=HELD), times=times)


@pytest.mark.fault("embedded queue", TOKEN)
@pytest.mark.timeout(300)
async def test_tokens_on_sqlite(tmp_path: Path, form: Form[int], tell: Tell) -> None:
    """The same."""
    times = form(1, 10)
    async with embedded(tmp_path) as made, faced(made, {"login": SAME_SUB}) as face:
        await killed(made, face.upstreams["login"], times)
        tell(await made.account(cause=HELD), times=times)
