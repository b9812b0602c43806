"""The configuration changes under a running worker: pending deliveries use it, and a bad file keeps the old."""

import json
import signal
from pathlib import Path

import pytest
from aiohttp import web

from tests.features.registries.list_server import page, serving
from tests.support.certificates import authority
from tests.support.hanging_files import hanging
from tests.system.broker import broker
from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import replying_worker, worker


def event(sid: str, client_id: str = "shop") -> dict[str, object]:
    """One session at one client."""
    return {"id": f"e-{sid}", "iss": ISSUER, "sub": "alice", "sid": sid, "clients": [client_id]}


async def test_file_that_hangs_keeps_the_old_clients(tmp_path: Path) -> None:
    """The reload names it, and others are served meanwhile. Once it answers, the files are read without a request."""
    file = tmp_path / "ca.pem"
    good = authority(tmp_path / "ca").ca_file.read_bytes()
    file.write_bytes(good)
    async with Clients() as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        bank = client("bank", "https://bank.example.com/logout", tls={"ca_file": "ca.pem"})
        site.write_clients([bank, client("shop", clients.url("shop"))])
        async with worker(site) as running:
            file.unlink()
            with hanging(file):
                site.write_clients([bank, client("shop", clients.url("shop")), client("new", clients.url("new"))])
                failed = await running.until_logged("reload_failed")
                assert failed["mistakes"] == [f"{file} does not answer: its file system may be unreachable"]
                assert (await running.post(event("s1")))[0] == 202
                await clients.until_notified("shop", ["s1"])
                assert (await running.post({**event("s2"), "clients": ["shop", "bank"]}))[0] == 202
                await clients.until_notified("shop", ["s1", "s2"])
            file.write_bytes(good)
            await running.until_logged("reloaded")
            assert (await running.post(event("s3", "new")))[0] == 202
            await clients.until_notified("new", ["s3"])
            assert await running.stop() == 0


async def test_invalid_file_keeps_the_old_clients(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """Half-written, much shorter, or without URIs, and SIGHUP changes nothing of that: the old clients are served.

    `notifier reload` shows each worker's result and the lost clients, and applies the files once accepted.
    """
    names = [f"c{number}" for number in range(10)]
    async with Clients() as clients, broker(amqp_url, prefix) as rabbit:
        site = Site(tmp_path, amqp_url, prefix)
        registrations = [client(name, clients.url(name)) for name in names]
        site.write_clients(registrations)
        async with worker(site) as running:
            await running.until_metric(1, "config_last_reload_success")
            file = tmp_path / "clients.yaml"
            file.write_text(file.read_text()[:-100])
            running.send(signal.SIGHUP)
            await running.until_logged("reload_failed")
            await running.until_metric(0, "config_last_reload_success")
            await rabbit.publish(event("s1", "c9"))
            await clients.until_notified("c9", ["s1"])

            site.write_clients(registrations)
            running.send(signal.SIGHUP)
            await running.until_logged("reloaded")
            await running.until_metric(1, "config_last_reload_success")

            site.write_clients(registrations[:2])
            running.send(signal.SIGHUP)
            await running.until_logged("reload_refused", lambda line: "8 of 10 clients" in str(line["reason"]))
            await running.until_metric(0, "config_last_reload_success")
            await rabbit.publish(event("s2", "c9"))
            await clients.until_notified("c9", ["s2"])

            site.write_clients([{**each, "backchannel_logout_uri": None} for each in registrations])
            running.send(signal.SIGHUP)
            await running.until_logged("reload_refused", lambda line: "10 of 10 clients" in str(line["reason"]))
            await rabbit.publish(event("s2b", "c9"))
            await clients.until_notified("c9", ["s2b"])

            site.write_clients(registrations[:2])
            refused = await notifier_at(site, "reload")
            assert refused.returncode == 1
            assert "not applied: 8 of 10 clients" in refused.stdout
            assert ", ".join(f"'{name}'" for name in names[2:]) in refused.stdout
            assert "0 of 1 worker applied everything" in refused.stdout
            await running.until_metric(0, "config_last_reload_success")
            taken = await notifier_at(site, "reload", "--accept-loss", "--json")
            assert (taken.returncode, taken.stderr) == (0, "")
            assert json.loads(taken.stdout)["workers"]["each"][0]["clients"] == 2
            await running.until_logged(
                "reload_loss_accepted", lambda line: line["audit"] is True and "@" in str(line["who"])
            )
            await running.until_metric(1, "config_last_reload_success")
            await rabbit.publish(event("s3", "c9"))
            [dead_letter] = await rabbit.until_dead(1)
            assert dead_letter.headers["reason"] == "unknown_client"
            assert await running.stop() == 0


async def test_http_reload_reaches_all_workers_and_guards_each(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """Whichever is asked. A loss is taken by all of them, but only if the caller insists."""
    async with Clients() as clients:
        site = Site(tmp_path, amqp_url, prefix)
        registrations = [client(name, clients.url(name)) for name in ("a", "b", "c", "d")]
        site.write_clients(registrations)
        (tmp_path / "tokens.yaml").write_text(json.dumps([{"name": "sre", "token": "r", "scopes": ["repair"]}]))
        async with replying_worker(site) as first, replying_worker(site) as second:

            async def ask(query: str = "") -> tuple[bool, list[tuple[bool, str, int]]]:
                status, reported = await first.ask("POST", f"/v1/reload{query}", "r")
                assert (status, reported["workers"]["seen"]) == (200, 2)
                each = reported["workers"]["each"]
                return reported["taken"], [(one["taken"], " ".join(one["problems"]), one["clients"]) for one in each]

            assert await ask() == (True, [(True, "", 4)] * 2)
            site.write_clients(registrations[:1])
            taken, answers = await ask()
            assert (taken, [(one[0], one[2]) for one in answers]) == (False, [(False, 4)] * 2)
            assert all("3 of 4 clients" in one[1] for one in answers)
            assert await ask("?accept_loss=true") == (True, [(True, "", 1)] * 2)
            for each in (first, second):
                line = await each.until_logged("reload_loss_accepted")
                assert (line["who"], line["audit"]) == ("sre (claimed)", True)
                await each.until_metric(1, "config_last_reload_success")
            assert [line["who"] for line in first.logged("reload_asked")].count("sre") == 3
            assert [line["who"] for line in second.logged("reload_asked")] == ["sre (claimed)"] * 3


@pytest.mark.full
async def test_poisoned_list_is_undone_at_all_workers(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """By the honest list at once, whatever it lacks; and `--drop` forgets what a worker and its cache still keep.

    If the source is down then, logouts wait for its answer, for as long as that takes.
    """
    async with Clients() as clients, broker(amqp_url, prefix) as rabbit:
        honest = [client(f"c{nth}", clients.url(f"c{nth}")) for nth in range(3)]
        rows: list[list[dict[str, object]] | None] = [honest]

        async def listed(_request: web.Request) -> web.Response:
            return web.Response(status=500) if rows[0] is None else page(rows[0])

        async with serving(listed) as url:
            site = Site(tmp_path, amqp_url, prefix)
            source = {"name": "idp", "issuer": ISSUER, "every": "10m", "http": {"url": f"{url}/clients"}}
            site.config["registry"] = {"cache": "cache", "grace": "1s", "sources": [source]}
            site.write()
            async with replying_worker(site) as running:
                rows[0] = [client(name, clients.url("evil")) for name in ("c0", "x1", "x2")]
                poisoned = await notifier_at(site, "reload")
                assert "registry source idp: held back: 2 of 3 clients" in poisoned.stdout
                await running.until_metric(1, "registry_source_changed", source="idp")
                rows[0] = honest
                assert (await notifier_at(site, "reload")).returncode == 0
                await rabbit.publish(event("s1", "c0"))
                await clients.until_notified("c0", ["s1"])
                assert clients.notified("evil") == []

                rows[0] = []
                assert "held back" in (await notifier_at(site, "reload")).stdout
                wrong = await notifier_at(site, "reload", "--drop", "ipd")
                assert (wrong.returncode, "there is idp" in wrong.stdout) == (1, True)
                dropped = await notifier_at(site, "reload", "--drop", "idp", "--json")
                assert json.loads(dropped.stdout)["workers"]["each"][0]["clients"] == 0
                line = await running.until_logged("registry_source_dropped")
                assert (line["source"], line["audit"], "@" in str(line["who"])) == ("idp", True, True)
                assert not (tmp_path / "cache" / "idp.jsonl").exists()  # that it has no client is not believed
                assert "empty: true" in (await running.get("/readyz"))[1]

                rows[0] = None
                away = await notifier_at(site, "reload", "--drop", "idp")
                assert away.returncode == 1
                assert "a stopped worker keeps its cache of idp" in away.stdout
                assert "registry source idp was never read" in (await running.get("/readyz"))[1]
                assert not (tmp_path / "cache" / "idp.jsonl").exists()
                await rabbit.publish(event("s2", "c0"))
                await running.until_metric(2, "deferrals_total", cause="unknown")  # twice: longer than the grace
                rows[0] = honest
                await clients.until_notified("c0", ["s1", "s2"])
                assert await running.stop() == 0


@pytest.mark.full
async def test_api_requires_tokens_until_the_restart(tmp_path: Path) -> None:
    """The listener stands although its section is gone: who has no token is turned away as before."""
    site = Site(tmp_path, "sqlite:queue.db")
    async with worker(site) as running:
        assert running.logged("queue_file")[0]["file"] == str(tmp_path / "queue.db")
        del site.config["api"]
        site.write()
        await running.until_logged("reload_needs_restart", lambda line: line["settings"] == ["api"])
        await running.until_logged("reloaded")
        assert (await running.post(event("s1"), token=None))[0] == 401
        assert (await running.post(event("s1")))[0] == 202
        assert await running.stop() == 0
