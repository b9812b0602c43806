"""Nothing secret leaves the worker: its logs, metrics and dead letters are searched after everything went wrong."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.broker import Broker, broker
from tests.system.clients import Clients, Hit
from tests.system.site import API_TOKEN, ISSUER, Site, client
from tests.system.worker_process import WorkerProcess, worker

PASSWORD = "Br0ker-passw0rd-4711"
PROXY_PASSWORD = "proxy-passw0rd-4712"
HEADER = "header-secret-4713"
SUB = "alice-the-raw-sub"
SID = "session-the-raw-sid"
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{5,}")


def echo(hit: Hit) -> web.Response:
    """What a careless client answers: the request, the user and the session, in a body and in headers."""
    status = {"/failing": 503, "/refusing": 403, "/rejecting": 400}[hit.path]
    logged = {"error": "invalid_request", "body": f"logout_token={hit.token}", "sub": SUB, "sid": SID, "key": HEADER}
    return web.json_response(logged, status=status, headers={"Location": f"/x?logout_token={hit.token}&sid={SID}"})


def install(tmp_path: Path, url: str, prefix: str, clients: Clients) -> Site:
    """Clients that fail in three ways: one behind an unreachable proxy, one without a listener."""
    site = Site(tmp_path, url, prefix)
    site.config["delivery"] = {"max_age": "4s", "retry": {"base": "1s", "max_delay": "1s"}}
    site.write()
    site.write_clients(
        [
            *(
                client(name, clients.url(name) + f"?key={HEADER}", headers={"X-Api-Key": HEADER})
                for name in ("failing", "refusing", "rejecting")
            ),
            client("proxied", clients.url("failing"), proxy=f"http://user:{PROXY_PASSWORD}@127.0.0.1:9"),
            client("deaf", "http://127.0.0.1:9/logout"),
        ]
    )
    return site


async def misuse(running: WorkerProcess) -> None:
    """Requests to the API that a log might well quote."""
    await running.post({"iss": 5, "sub": SUB, "sid": SID, "clients": "*"})
    await running.post({"iss": ISSUER, "sub": SUB, "clients": ["shop"]}, token="eyJhbGciOiJub25lIn0.wrong")
    await running.post(b'{"sub": "' + SUB.encode() + b'", \xff')
    url = await running.at("api")
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {API_TOKEN}", "Content-Type": "text/plain"}
        async with session.get(f"{url}/v1/events?sub={SUB}&token={API_TOKEN}", headers=headers):
            pass


def searched(where: str, text: str, secrets: Iterable[str]) -> None:
    """Fail with the secrets found, and where."""
    found = [secret for secret in secrets if secret in text] + TOKEN.findall(text)
    lines = [line[:400] for line in text.splitlines() if any(secret in line for secret in found)]
    assert not found, f"{where}: {lines[:5]}"


async def run(site: Site, rabbit: Broker, clients: Clients) -> tuple[str, str]:
    """Everything goes wrong; returns the log and the metrics."""
    names = ["failing", "refusing", "rejecting", "proxied", "deaf"]
    async with worker(site) as running:
        await rabbit.publish({"id": "e1", "iss": ISSUER, "sub": SUB, "sid": SID, "clients": names})
        await rabbit.publish({"iss": ISSUER, "sub": SUB, "sid": SID, "clients": ["nobody", {"client_id": 7}]})
        await rabbit.publish(json.dumps({"sub": SUB, "sid": SID, "ended_at": SUB}).encode())
        await misuse(running)
        (site.folder / "first.pem").write_text((site.folder / "first.pem").read_text()[:-60])
        (site.folder / "tokens.yaml").write_text(f"- {{name: idp, token: {API_TOKEN}, scopes: [publsh]}}")
        await running.until_logged("reload_failed")
        await rabbit.until_dead(7)
        _, metrics = await running.get("/metrics")
        assert await running.stop() == 0
        return running.log, metrics


@pytest.mark.timeout(90)
async def test_no_secret_is_in_logs_metrics_or_dead_letters(
    tmp_path: Path, rabbitmq: RabbitmqNode | None, own_vhost: str, amqp_url: str, prefix: str
) -> None:
    """No token, key or password anywhere; no raw `sub` or `sid` in logs and metrics, at level debug.

    Clients echo their requests, and files are broken while they are read.
    """
    url = amqp_url
    if rabbitmq is not None:
        rabbitmq.ctl("add_user", prefix, PASSWORD)
        rabbitmq.ctl("set_permissions", "-p", own_vhost, prefix, ".*", ".*", ".*")
        url = amqp_url.replace("guest:guest", f"{prefix}:{PASSWORD}")
    async with Clients(echo) as clients, broker(amqp_url, prefix) as rabbit:
        site = install(tmp_path, url, prefix, clients)
        secrets = [*site.secrets(), PASSWORD, PROXY_PASSWORD]
        log, metrics = await run(site, rabbit, clients)
        dead_letters = await rabbit.dead_letters()
    assert {str(dead_letter.headers["client_id"]) for dead_letter in dead_letters} >= {
        "failing",
        "refusing",
        "rejecting",
        "deaf",
    }
    assert 'client_id="refusing"' in metrics
    assert "reload_failed" in log
    searched("log", log, [*secrets, HEADER, SUB, SID])
    searched("metrics", metrics, [*secrets, HEADER, SUB, SID])
    for dead_letter in dead_letters:
        searched("dead letter", dead_letter.body.decode(), secrets)
        searched("headers of a dead letter", repr(dead_letter.headers), [*secrets, HEADER, SUB, SID])


async def test_refused_login_is_logged_without_password(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """The broker refuses the user: the worker exits with 1 and logs it."""
    site = Site(tmp_path, amqp_url.replace("guest:guest", f"nobody:{PASSWORD}"), prefix)
    async with worker(site, ready=False) as running:
        assert await running.ended() == 1
        assert "refused the user name or the password" in running.log
        searched("log", running.log, [*site.secrets(), PASSWORD])
