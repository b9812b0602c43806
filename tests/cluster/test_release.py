"""The life of a release under load: installed, tested, upgraded, drained, rolled back, uninstalled, by each Helm.

The workers are real processes, the namespace takes none but *restricted* pods, and an identity server publishes all the
time. Nothing is lost, and no client is told twice.
"""

import asyncio
import re

import pytest

from tests.cluster.commands import Commands
from tests.cluster.release import Release
from tests.faults.rig import Rig, load
from tests.faults.test_rolling_update import slowly

RATE = 40  # events a second, each for three clients
NODES = ("node-a", "node-b", "node-c")
AGAIN = "told again by the cluster"
ROLL = {"max_in_flight": 200}  # of `config.delivery`: a setting that is read once


async def drain_all(commands: Commands, release: Release) -> None:
    """One node after the other, each waited for and given back."""
    for node in NODES:
        (
            await commands.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s")
        ).good()
        (await commands.kubectl("uncordon", node)).good()
        await ready(commands, release)


async def ready(commands: Commands, release: Release) -> None:
    """Wait until as many workers are ready as there should be."""
    name = (await release.deployment())["metadata"]["name"]
    (
        await commands.kubectl("-n", release.namespace, "rollout", "status", f"deployment/{name}", "--timeout=180s")
    ).good()


@pytest.mark.timeout(900)
async def test_a_release_lives_and_dies_under_load(commands: Commands, release: Release, made: Rig) -> None:
    """Nothing is lost, nothing told twice, no worker has to be killed, no step warns, and nothing is left behind."""
    made.clients.judge = slowly
    steps = [(await release.install("--wait", "--timeout", "3m")).good()]
    tested = (await release.test()).good()
    assert "published, signed and delivered" in tested.out + tested.err, tested
    assert "did not reach itself" not in tested.out + tested.err, tested
    examined = (await release.notifier("doctor")).good()
    assert "notifier-canary: is there only while a test" in examined.out, examined
    assert [line for line in examined.out.splitlines() if re.match("  [!✗]", line) and "canary" in line] == [], examined
    async with load(made.publisher, RATE) as end:
        await made.more(100)
        release.values["config"]["delivery"] |= ROLL
        steps.append((await release.upgrade("--wait", "--timeout", "3m")).good())
        await drain_all(commands, release)
        steps.append((await release.helm("rollback", release.name, "1", "--wait", "--timeout", "3m")).good())
        await made.more(100)
        await end()
    await made.until_settled()
    killed = await commands.get(release.namespace, "events", "--field-selector=reason=ExceededGracePeriod")
    steps.append((await release.uninstall()).good())
    await asyncio.wait_for(gone(release), 60)
    assert [step.warnings for step in steps if step.warnings] == []
    account = await made.account(cause=AGAIN)
    print(account)  # noqa: T201  what `pytest -s` and a failed run show
    assert account.holds, str(account)
    assert AGAIN not in account.duplicates, str(account)
    assert killed == []


async def gone(release: Release) -> None:
    """Wait until nothing of the release is left."""
    while left := await release.left():
        print(f"left: {left}")  # noqa: T201
        await asyncio.sleep(0.5)
