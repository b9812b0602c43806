"""The workload that keeps what became of deliveries: the collector, and the reports that a CronJob and people make."""

import json
from pathlib import Path

import pytest

from tests.cluster.commands import Commands, typed
from tests.cluster.release import Release
from tests.faults.rig import CLIENTS, Rig, refuses
from tests.system.waiting import until

EVENTS = 20
DEAD = sum(map(refuses, range(1, EVENTS + 1)))
ENDED = len(CLIENTS) * EVENTS
COLLECTOR = {"enabled": True, "report": {"schedule": "0 6 * * *"}}


async def make_volume(commands: Commands, namespace: str, folder: str) -> str:
    """A volume for the claim of the chart, as a cluster's provisioner would make one; its name."""
    spec = {
        "capacity": {"storage": "4Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": folder},
        "claimRef": {"namespace": namespace, "name": "notifier-collector"},
    }  # fmt: skip
    meta = {"name": f"outcomes-{namespace}"}
    await commands.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta, "spec": spec})
    return meta["name"]


@pytest.mark.parametrize("helm", ["helm4"], indirect=True)
@pytest.mark.timeout(300)
async def test_outcomes_are_collected_and_reported(
    commands: Commands, release: Release, made: Rig, tmp_path: Path
) -> None:
    """By pods of the standard *restricted*, that share a volume; what comes while the collector is away is not lost."""
    release.values["config"]["outcomes"] = "all"
    release.values["collector"] = COLLECTOR
    (outcomes := tmp_path / "outcomes").mkdir()
    volume = await make_volume(commands, release.namespace, str(outcomes))
    try:
        done = (await release.install("--wait", "--timeout", "3m")).good()
        assert done.warnings == []
        await until(lambda: report(release), lambda ended: ended == 0, 60)  # it has bound its queue
        await made.publisher.publish(range(1, EVENTS // 2 + 1), rate=100)
        await made.until_settled()
        await until(lambda: report(release), lambda ended: ended == ENDED // 2, 60)
        collector = ["-n", release.namespace, "scale", "deployment/notifier-collector"]
        (await commands.kubectl(*collector, "--replicas=0")).good()
        await until(lambda: pods(release), lambda number: number == 0, 60)
        await made.publisher.publish(range(EVENTS // 2 + 1, EVENTS + 1), rate=100)
        await made.until_settled()
        (await commands.kubectl(*collector, "--replicas=1")).good()
        await until(lambda: report(release), lambda ended: ended == ENDED, 60)
        for line in typed("## Reports"):
            code, said = await commands.type(line.replace("-n logout ", f"-n {release.namespace} "), tmp_path)
            assert code == 0, said
            if "logs" in line:
                made_now, _ = json.JSONDecoder().raw_decode(said, said.index("{"))
                assert made_now["total"]["dead"] == DEAD, said
        assert "<html" in (tmp_path / "week.html").read_text()
        (await release.uninstall()).good()
        await until(release.left, lambda left: left == [], 60)
    finally:
        await commands.kubectl("delete", "persistentvolume", volume, "--wait=false")


async def pods(release: Release) -> int:
    """How many collectors there are."""
    label = "app.kubernetes.io/name=notifier-collector"
    return len(await release.commands.get(release.namespace, "pods", "-l", label))


async def report(release: Release) -> int | None:
    """How many deliveries have ended, by a report in the collector's pod; None while it cannot be made."""
    words = ["exec", "deploy/notifier-collector", "--", "notifier", "report", "--json"]
    done = await release.commands.kubectl("-n", release.namespace, *words)
    return None if done.code else sum(done.json()["total"][fate] for fate in ("delivered", "dead"))
