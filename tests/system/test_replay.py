"""A replay reports the results of its dead letters: the command, and the API, from any worker."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.site import ISSUER
from tests.system.test_retry import Answers, event, site_of
from tests.system.waiting import until
from tests.system.worker_process import replying_worker, worker


@pytest.mark.full
async def test_replay_reports_the_results_of_its_dead_letters(place: tuple[str, str], tmp_path: Path) -> None:
    """Given up again with exit status 1, then delivered with 0."""
    answers = Answers(shop=404, wiki=404)
    async with Clients(answers) as clients:
        site = site_of(tmp_path, clients, place)
        async with replying_worker(site) as running:
            for number in range(3):
                assert (await running.post(event(number, "shop", "wiki")))[0] == 202
            dead_letters = "/v1/dead-letters"
            await until(lambda: running.ask("GET", dead_letters, "r"), lambda answer: answer[1]["total"] == 6)

            reported = await notifier_at(site, "dead-letters", "replay", "--client-id", "shop", "--json")
            account = json.loads(reported.stdout)
            assert (reported.returncode, account["replayed"]) == (1, 3), reported.stderr
            assert account["became"]["dead"] == {"refused": 3}
            assert account["became"]["waiting"] == 0

            answers.by_path["shop"] = 200
            reported = await notifier_at(site, "dead-letters", "replay", "--client-id", "shop")
            assert (reported.returncode, "3 replayed" in reported.stdout) == (0, True)
            assert "3 delivered" in reported.stdout, reported.stdout
            _, line = running.logged("dead_letters_replayed")
            assert (line["done"], line["audit"]) == (3, True)
            assert line["who"].endswith(" (claimed)")
            assert "audit" not in reported.stderr

            answers.by_path["wiki"] = 503
            status, job = await running.ask("POST", f"{dead_letters}/replay", "r", {"client_id": "wiki", "iss": ISSUER})
            assert (status, job["state"]) == (202, "waiting")

            async def asked() -> dict[str, Any]:
                _, known = await running.ask("GET", f"/v1/jobs/{job['id']}", "r")
                return dict(known)

            job = await until(asked, lambda known: known["state"] == "ended")
            assert (job["replayed"], job["became"]["waiting"]) == (3, 3)
            assert job["became"]["failed"]["server_error"] >= 1
            # then the line of the job, which has the name of its token
            lines = await until(
                lambda: asyncio.sleep(0, running.logged("dead_letters_replayed")), lambda lines: len(lines) == 3
            )
            assert not lines[-1]["who"].endswith(" (claimed)")


async def test_replay_ends_within_the_drain(place: tuple[str, str], tmp_path: Path) -> None:
    """A worker that ends lets it move the letters at hand, and closes the queue only then."""
    async with Clients(Answers(shop=404)) as clients, worker(site_of(tmp_path, clients, place)) as running:
        for number in range(3):
            assert (await running.post(event(number, "shop")))[0] == 202
        dead_letters = "/v1/dead-letters"
        await until(lambda: running.ask("GET", dead_letters, "r"), lambda answer: answer[1]["total"] == 3)
        _, job = await running.ask("POST", f"{dead_letters}/replay", "r", {"all": True, "rate": 0.001})
        path = f"/v1/jobs/{job['id']}"
        await until(lambda: running.ask("GET", path, "r"), lambda answer: answer[1]["replayed"] == 1)
        assert await running.stop() == 0
        [text] = running.logged("dead_letters_replayed")
        assert (text["done"], text["unfinished"]) == (1, "the worker ended; the rest is unchanged")
        events = [json.loads(line)["event"] for line in running.lines if line.startswith("{")]
        assert events.index("dead_letters_replayed") < events.index("drained")
