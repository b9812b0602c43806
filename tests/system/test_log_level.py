"""The log's level changes while the worker runs."""

import asyncio
import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

from tests.system.clients import Clients
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import WorkerProcess, worker

TOKENS = """
- {name: idp, token: publish-only-token-5b1e, scopes: [publish]}
- {name: op, token: repair-token-of-the-operator-9a, scopes: [publish, read, repair]}
- {name: tenant, token: repair-token-of-one-issuer-3c, scopes: [publish, read, repair], issuers: ["https://id.example.com"]}
"""
REPAIR = "repair-token-of-the-operator-9a"
OF_ONE_ISSUER = "repair-token-of-one-issuer-3c"


async def test_a_signal_turns_debug_on_and_off(tmp_path: Path) -> None:
    """Debug lines are logged between two SIGUSR1 only; attempts are always logged."""
    async with Clients() as clients:
        site = _site(tmp_path, clients)
        async with worker(site) as running:
            await _sign_out(running, "s1")
            running.send(signal.SIGUSR1)
            await running.until_logged("log_level", lambda line: line["level_now"] == "debug")
            await _sign_out(running, "s2")
            await running.until_logged("event", lambda line: line["event_id"] == "s2")
            running.send(signal.SIGUSR1)
            await running.until_logged("log_level", lambda line: line["level_now"] == "info")
            await _sign_out(running, "s3")
            assert await running.stop() == 0
            assert [line["event_id"] for line in running.logged("event")] == ["s2"]
            assert sorted(line["event_id"] for line in running.logged("attempt")) == ["s1", "s2", "s3"]


async def test_the_api_sets_the_level(tmp_path: Path) -> None:
    """With the scope repair; who did it is in the log, and a level that there is not is a mistake."""
    async with Clients() as clients:
        site = _site(tmp_path, clients)
        async with worker(site) as running:
            ask = partial(_level, running)

            assert (await ask("PUT", "publish-only-token-5b1e", {"level": "debug"}))[0] == 403
            status, reported = await ask("PUT", OF_ONE_ISSUER, {"level": "error"})
            assert status == 403
            assert "only a token without issuers" in json.dumps(reported)
            assert (await ask("GET", OF_ONE_ISSUER))[0] == 200
            assert (await ask("GET", REPAIR)) == (200, {"level": "info", "configured": "info"})
            status, reported = await ask("PUT", REPAIR, {"level": "loud"})
            assert status == 400
            assert reported["mistakes"][0]["path"] == "level"
            assert "'debug', 'info', 'warning' or 'error'" in reported["mistakes"][0]["text"]
            assert (await ask("PUT", REPAIR, ["debug"]))[0] == 400
            assert (await ask("PUT", REPAIR, {"level": "warning"})) == (
                200,
                {"level": "warning", "configured": "info"},
            )
            assert (await running.until_logged("log_level"))["by"] == "op"
            await _sign_out(running, "s1")
            assert await running.stop() == 0
            assert running.logged("attempt") == []


async def _level(running: WorkerProcess, method: str, token: str, body: object = None) -> tuple[int, Any]:
    return await running.ask(method, "/v1/log-level", token, body)


def _site(folder: Path, clients: Clients) -> Site:
    site = Site(folder, f"sqlite:{folder / 'queue.db'}")
    site.config["log"]["level"] = "info"
    (folder / "tokens.yaml").write_text(TOKENS)
    site.write()
    site.write_clients([client("shop", clients.url("shop"))])
    return site


async def _sign_out(running: WorkerProcess, session: str) -> None:
    """End a session, and wait until its client was notified and that was counted."""
    before = await running.metric("events_total", result="accepted")
    event = {"id": session, "iss": ISSUER, "sub": "u", "sid": session, "clients": ["shop"]}
    async with asyncio.timeout(60):
        assert (await running.post(event, token=REPAIR))[0] == 202
        await running.until_metric(before + 1, "events_total", result="accepted")
