"""`notifier retry` and `notifier waiting`, and their routes: pending deliveries are listed, retried, cancelled."""

import asyncio
import json
import re
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.system.clients import Answer, Clients, Hit
from tests.system.command import notifier_at
from tests.system.site import API_TOKEN, ISSUER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, replying_worker, worker


class Answers:
    """The answer of each client, by its path; 200 by default."""

    def __init__(self, **statuses: int) -> None:
        self.by_path = statuses
        self.accepted: list[str] = []

    def __call__(self, hit: Hit) -> Answer:
        name = hit.path.strip("/")
        status = self.by_path.get(name, 200)
        self.accepted += [name] if status == 200 else []
        return status


def site_of(folder: Path, clients: Clients, place: tuple[str, str]) -> Site:
    """Two clients, whose own backoff is long."""
    site = Site(folder, *place)
    site.config["delivery"]["retry"] = {"base": "600s", "max_delay": "600s"}
    site.write()
    site.write_clients([client(name, clients.url(name)) for name in ("shop", "wiki")])
    tokens = [
        {"name": "idp", "token": API_TOKEN, "scopes": ["publish"]},
        {"name": "sre", "token": "r", "scopes": ["read", "repair"]},
        {"name": "other", "token": "o", "scopes": ["read", "repair"], "issuers": ["https://other.example.com"]},
    ]
    (folder / "tokens.yaml").write_text(json.dumps(tokens))
    return site


def event(number: int, *names: str) -> dict[str, Any]:
    """An event of a new session."""
    return {"iss": ISSUER, "sub": "alice", "sid": f"s{number}", "clients": list(names)}


async def rows(site: Site, *words: str) -> list[dict[str, Any]]:
    """What `waiting list` shows."""
    done = await notifier_at(site, "waiting", "list", "--json", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def job_of(running: WorkerProcess, begun: tuple[int, Any]) -> Any:
    """The account of the job that this answer began, once it has ended."""
    status, job = begun
    assert status == 202, job
    path = f"/v1/jobs/{job['id']}"
    return (await until(lambda: running.ask("GET", path, "r"), lambda reported: reported[1].get("state") == "ended"))[1]


@pytest.mark.full
async def test_pending_deliveries_are_listed_and_retried(place: tuple[str, str], tmp_path: Path) -> None:
    """One delivery waits for its own backoff, the others for a client that is down; then it is well."""
    answers = Answers(shop=503, wiki=400)
    async with Clients(answers) as clients:
        site = site_of(tmp_path, clients, place)
        async with replying_worker(site) as running:
            for number in range(4):
                assert (await running.post(event(number, "shop", "wiki")))[0] == 202
            shown = await until(lambda: rows(site), lambda shown: len(shown) == 8)
            assert all(each["has_sid"] and each["expires"] > each["since"] for each in shown)
            assert {(each["client_id"], each["where"]) for each in shown} >= {("shop", "parked"), ("wiki", "delayed")}
            assert "alice" not in json.dumps(shown)
            assert len(await rows(site, "--client-id", "wiki", "--skip", "1", "--limit", "2")) == 2
            reported = (
                await notifier_at(site, "retry", "--client-id", "wiki", "--iss", ISSUER, "--dry-run", "--json")
            ).stdout
            assert json.loads(reported)["waited"] == 4
            [reported] = (await running.ask("GET", "/v1/waiting?client_id=wiki", "r"))[1]["groups"]
            assert (reported["without_sid"], reported["expires"] > reported["oldest"]) == (0, True)
            [reported] = [
                each for each in (await running.ask("GET", "/v1/status", "r"))[1]["clients"] if each["waits"] == 4
            ][:1]
            assert (reported["expires"], reported["expires_without_sid"]) == (reported["expires_with_sid"], None)
            of_shop = "/v1/waiting?client_id=shop"
            await until(lambda: running.ask("GET", of_shop, "r"), lambda answer: answer[1]["total"] == 4)
            assert (await running.ask("GET", "/v1/waiting", "o"))[1]["total"] == 0
            retry = {"client_id": "wiki", "iss": ISSUER}
            assert (await running.ask("POST", "/v1/retry", "o", retry))[0] == 403
            assert (await running.ask("POST", "/v1/retry", "r", {"client_id": "wiki"}))[
                0
            ] == 400  # there are two issuers
            status, told_by_api = await running.ask("POST", "/v1/retry", "r", {**retry, "dry_run": True})
            assert (status, told_by_api["waited"], told_by_api["dry_run"]) == (200, 4, True)
            answers.by_path["wiki"] = 200
            told_by_api = await job_of(running, await running.ask("POST", "/v1/retry", "r", retry))
            assert (told_by_api["waited"], told_by_api["delivered"], told_by_api["waiting"]) == (4, 4, 0)
            done = await notifier_at(site, "retry", "--client-id", "shop", "--iss", ISSUER)
            assert done.returncode == 1
            # The next probe may be in flight, and its replacement.
            assert re.match("[2-4] deliveries waited for shop\n0 delivered\n", done.stdout), done.stdout
            assert "failed again\n  server_error: " in done.stdout
            answers.by_path["shop"] = 200
            done = await notifier_at(site, "retry", "--client-id", "shop", "--iss", ISSUER, "--json")
            account = json.loads(done.stdout)
            # Its next attempt may come first, and defer a delivery that arrives meanwhile.
            assert (account["failed"], account["dead"]) == ({}, {}), done.stdout
            assert "retried_now" not in done.stderr
            assert {line["who"].endswith(" (claimed)") for line in running.logged("retried_now")} == {True, False}
            await clients.until(lambda: answers.accepted.count("shop") == answers.accepted.count("wiki") == 4)


async def test_busy_client_does_not_delay_retries_of_others(place: tuple[str, str], tmp_path: Path) -> None:
    """A second retry of it is the first one, and to end that ends the watching alone. A cancellation is a job, too."""
    refusing, answered = Answers(shop=400, wiki=400), asyncio.Event()

    async def answer(hit: Hit) -> Answer:
        if hit.path == "/shop" and not refusing.by_path:
            await answered.wait()
        return refusing(hit)

    async with Clients(answer) as clients:
        site = site_of(tmp_path, clients, place)
        async with replying_worker(site) as running:
            for number in range(2):
                assert (await running.post(event(number, "shop", "wiki")))[0] == 202
            await until(lambda: rows(site), lambda shown: len(shown) == 4)
            refusing.by_path = {}
            shop, wiki = ({"client_id": name, "iss": ISSUER} for name in ("shop", "wiki"))
            status, busy = await running.ask("POST", "/v1/retry", "r", shop)
            path = f"/v1/jobs/{busy['id']}"
            await until(lambda: running.ask("GET", path, "r"), lambda reported: reported[1]["state"] == "watching")
            done = await job_of(running, await running.ask("POST", "/v1/retry", "r", wiki))
            assert (status, done["delivered"], done["unfinished"]) == (202, 2, None)
            assert (await running.ask("POST", "/v1/retry", "r", shop))[1]["id"] == busy["id"]
            listed = (await running.ask("GET", "/v1/jobs", "r"))[1]
            assert [(job["kind"], job["client_id"]) for job in listed["jobs"]] == [("retry", "wiki"), ("retry", "shop")]
            assert listed["workers"] == {"seen": 1, "answered": 1}
            assert (await running.ask("GET", "/v1/jobs", "o"))[1]["jobs"] == []
            busy = await job_of(running, await running.ask("DELETE", path, "r"))
            assert busy["unfinished"].startswith("no longer watched; the workers go on")
            answered.set()
            await clients.until(lambda: refusing.accepted.count("shop") == 2)

            refusing.by_path = {"wiki": 400}
            assert (await running.post(event(9, "wiki")))[0] == 202
            [shown] = await until(lambda: rows(site), lambda shown: len(shown) == 1)
            assert (await running.ask("DELETE", "/v1/waiting?id=none&dry_run", "r"))[1]["cancelled"] == 0
            by_id = f"/v1/waiting?id={shown['id']}&client_id=wiki"
            status, reported = await running.ask("DELETE", f"{by_id}&dry_run", "r")
            assert (status, reported["cancelled"]) == (200, 1)
            done = await job_of(running, await running.ask("DELETE", by_id, "r"))
            assert (done["kind"], done["cancelled"], done["more"]) == ("cancel", 1, False)
            assert await rows(site) == []


@pytest.mark.full
async def test_job_of_a_killed_worker_is_unknown_and_its_deliveries_continue(
    place: tuple[str, str], tmp_path: Path
) -> None:
    """The job's account adds up until then, and nobody takes it for complete. A second retry attempts the rest."""
    sessions, refuses, killed = {f"s{number}" for number in range(10)}, True, asyncio.Event()

    async def answer(hit: Hit) -> Answer:
        if refuses:
            return 400
        if killed.is_set() or len(clients.accepted) < 3:
            return 200
        await killed.wait()
        return 503  # to nobody

    async with Clients(answer) as clients, AsyncExitStack() as others:
        site = site_of(tmp_path, clients, place)
        site.write_clients([client("shop", clients.url("shop"), max_concurrent=4)])
        async with replying_worker(site) as running:
            other = running  # an embedded queue has one worker, which is restarted
            if place[0].startswith("amqp"):
                other = await others.enter_async_context(replying_worker(site))
            for number in range(10):
                assert (await running.post(event(number, "shop")))[0] == 202
            await until(lambda: rows(site), lambda shown: len(shown) == 10)
            refuses = False
            status, job = await running.ask("POST", "/v1/retry", "r", {"client_id": "shop", "iss": ISSUER})
            assert status == 202
            path = f"/v1/jobs/{job['id']}"
            shown = await until(lambda: running.ask("GET", path, "r"), lambda shown: (shown[1]["delivered"] or 0) >= 3)
            account = shown[1]
            assert (account["state"], account["waited"]) == ("watching", 10)
            parts = ("delivered", "waiting", "unknown")
            assert sum(account["dead"].values()) + sum(account[name] for name in parts) == 10
            await running.stop(signal.SIGKILL)
        killed.set()
        if other is running:
            other = await others.enter_async_context(replying_worker(site))
        unknown = await until(lambda: other.ask("GET", path, "r"), lambda shown: shown[0] != 503)
        assert (unknown[0], "its worker ended" in unknown[1]["title"]) == (404, True)
        done = await job_of(other, await other.ask("POST", "/v1/retry", "r", {"client_id": "shop", "iss": ISSUER}))
        assert (done["waiting"], done["unknown"], done["unfinished"]) == (0, 0, None)
        await clients.until(lambda: {session for _, session in clients.accepted} == sessions)


@pytest.mark.full
async def test_changed_address_releases_pending_deliveries(place: tuple[str, str], tmp_path: Path) -> None:
    """By itself, while deliveries to others stay pending."""
    answers = Answers(shop=400, wiki=400)
    async with Clients(answers) as clients:
        site = site_of(tmp_path, clients, place)
        async with worker(site) as running:
            assert (await running.post(event(1, "shop", "wiki")))[0] == 202
            shown = await until(lambda: rows(site), lambda shown: len(shown) == 2)
            assert (await running.ask("DELETE", "/v1/waiting", "r"))[0] == 400  # which?
            site.write_clients([client("shop", clients.url("moved")), client("wiki", clients.url("wiki"))])
            await clients.until_notified("moved", ["s1"])
            assert [each["client_id"] for each in await rows(site)] == ["wiki"]
            id_ = next(each["id"] for each in shown if each["client_id"] == "wiki")
            assert (await notifier_at(site, "waiting", "cancel", id_, "--dry-run")).stdout.startswith(
                "1 would be cancelled"
            )
            assert "--yes" in (await notifier_at(site, "waiting", "cancel", id_)).stderr
            assert (await running.ask("GET", f"/v1/waiting/{id_}", "r"))[1]["reason"] == "rejected_token"
            assert (await running.ask("DELETE", f"/v1/waiting/{id_}", "o"))[0] == 404
            assert (await running.ask("DELETE", f"/v1/waiting/{id_}", "r"))[1]["cancelled"] == 1
            assert (await notifier_at(site, "waiting", "show", id_)).returncode == 1
            await running.until_logged("waiting_cancelled_one")
