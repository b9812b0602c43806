"""`notifier log-id --in`: did this user's logout go out?"""

import json
from pathlib import Path

from tests.system.clients import Clients, Hit
from tests.system.command import notifier
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker


async def test_the_log_of_a_worker_answers_for_a_user(tmp_path: Path) -> None:
    """By table and by JSON, from a file and from stdin; exit 1 while a client has not been notified."""

    def judge(hit: Hit) -> int:
        return {"/shop": 204}.get(hit.path, 404)

    async with Clients(judge) as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        (tmp_path / "log.key").write_text("a key that all workers share")
        site.config["log"]["subject_key_file"] = "log.key"
        site.write()
        site.write_clients([client("shop", clients.url("shop")), client("gone", clients.url("gone"))])
        async with worker(site) as running:
            for sub, names in (("alice", ["shop", "gone"]), ("bob", ["shop"])):
                event = {"iss": ISSUER, "sub": sub, "sid": f"of-{sub}", "clients": names}
                assert (await running.post(event))[0] == 202
            await running.until_metric(2, "deliveries_settled_total", fate="delivered")
            await running.until_metric(1, "deliveries_settled_total", fate="dead")
            assert await running.stop() == 0
            log = running.log
    (tmp_path / "notifier.log").write_text(log)

    done = notifier("log-id", "-c", site.file, "alice", "--in", "notifier.log", "--json", cwd=tmp_path)
    assert done.returncode == 1
    found = {line["client_id"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert (found["shop"]["fate"], found["gone"]["fate"], found["gone"]["reason"]) == ("delivered", "dead", "refused")

    done = notifier("log-id", "-c", site.file, "alice", "--in", "notifier.log", cwd=tmp_path, settings={"COLUMNS": ""})
    assert len(done.stdout.split("\n\n")[0].splitlines()) == 3 + 2, "a heading and a line a client, none folded"

    done = notifier("log-id", "-c", site.file, "of-bob", "--in", "-", cwd=tmp_path, stdin=log)
    assert done.returncode == 0
    assert "shop" in done.stdout
    assert "delivered" in done.stdout
    assert "gone" not in done.stdout

    done = notifier("log-id", "-c", site.file, "carol", "--in", "notifier.log", cwd=tmp_path)
    assert done.returncode == 1
    assert "no attempt" in done.stderr
