"""The commands of docs/kubernetes.md that look into a cluster and act on it, typed as they stand there."""

import re
from pathlib import Path

import pytest

from tests.cluster.commands import Commands, typed
from tests.cluster.release import Release
from tests.faults.rig import Rig, refuses
from tests.system.clients import Hit
from tests.system.site import OTHER
from tests.system.waiting import until

FIRST, MORE = range(1, 15), range(15, 21)  # two of the first are refused by one client
DEAD = sum(map(refuses, FIRST))
SAYS = {  # by the command: what it must say
    "notifier status": "flaky",
    "notifier doctor": "healthy",
    "clients list": "flaky",
    '"event_id":"7"': '"event_id":"7"',
    "waiting list": "flaky",
    "--rows": "flaky",
    "waiting show": "flaky",
    "retry --client-id flaky --dry-run": f"{len(FIRST)}",
    "retry --client-id flaky  #": "delivered",
    "waiting cancel": f"{len(MORE)}",
    "dead-letters list": "refusing",
    "explain ": "rejected_token",
    "replay --client-id refusing --dry-run": f"{DEAD}",
}
ENDS_WITH = {"notifier doctor": 1}  # a client is down; of others 0 is wanted
ELSEWHERE = ("--watch", "port-forward")  # what goes on until it is interrupted


class Site:
    """A release whose client `flaky` is down, until it is said to be well."""

    def __init__(self, release: Release, made: Rig) -> None:
        self.release = release
        self.made = made
        self.well = False
        made.clients.judge = self._judge
        del release.values["config"]["issuers"][OTHER]  # one issuer, and the canary's
        for registered in release.values["clients"]:
            registered["notifier"] = {"retry": {"base": "1h", "factor": 1}}  # else it is tried again while one looks

    def _judge(self, hit: Hit) -> int:
        if hit.path == "/flaky" and not self.well:
            return 503
        return 403 if hit.path == "/refusing" and refuses(int(hit.who)) else 200

    async def publish(self, numbers: range) -> None:
        """Publish, and return once all that concerns the client that is down waits."""
        self.well = False
        await self.made.publisher.publish(numbers, rate=100)
        await until(self.waiting, lambda found: len(found) == len(numbers), 120)

    async def waiting(self) -> list[str]:
        """What waits, a line of JSON each."""
        return (await self.release.notifier("waiting", "list", "--json")).good().out.splitlines()

    async def dead(self) -> int:
        """How many dead letters there are."""
        return (await self.release.notifier("dead-letters", "list", "--json")).good().out.count("\n")

    async def before(self, line: str) -> str:
        """What somebody would have done before typing this; the line with the names of this test put in."""
        if "notifier retry" in line and "--dry-run" not in line:
            self.well = True
        if "waiting cancel" in line:
            await self.publish(MORE)
        here = f"-n {self.release.namespace} "
        put_in = {
            "-n logout ": here, "-it ": "", "discard ": "discard --yes ", "cancel ": "cancel --yes ",
            "EVENT_ID": "'\"event_id\":\"7\"'", "malformed_event": "refused",
            "shop": "refusing" if "dead-letters" in line else "flaky",
        }  # fmt: skip
        if "show ID" in line:
            [wanted] = re.findall(r'"id": ?"([^"]+)"', (await self.waiting())[-1])
            put_in["show ID"] = f"show {wanted}"
        return re.sub("|".join(put_in), lambda found: put_in[found[0]], line)


@pytest.mark.parametrize("helm", ["helm4"], indirect=True)
@pytest.mark.timeout(400)
async def test_every_command_works_as_it_stands(
    commands: Commands, release: Release, made: Rig, tmp_path: Path
) -> None:
    """In a pod of a worker, with what the chart puts into its environment."""
    site = Site(release, made)
    (await release.install("--wait", "--timeout", "3m")).good()
    await site.publish(FIRST)
    await until(site.dead, lambda number: number == DEAD, 60)
    lines = [line for line in typed("## Look and act") if not any(word in line for word in ELSEWHERE)]
    assert len(lines) > 14
    for line in lines:
        code, said = await type_in(commands, await site.before(line), tmp_path)
        assert code == next((code for word, code in ENDS_WITH.items() if word in line), 0), said
    assert (tmp_path / "letters.jsonl").read_text().count("\n") == DEAD
    assert await site.waiting() == []


async def type_in(commands: Commands, line: str, folder: Path) -> tuple[int, str]:
    """Type it, and look whether it says what it must."""
    code, said = await commands.type(line, folder)
    print(f"$ {line}\n{said}")  # noqa: T201  what `pytest -s` and a failed run show
    for word, wanted in SAYS.items():
        if word in line:
            assert wanted in re.sub(r"\s+", " ", said), (line, said)
    return code, said
