"""The dashboard equals its code, and no panel is without data after a worker has run."""

import datetime as dt
import json
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography.fernet import Fernet, MultiFernet

from notifier.features.browsers.front_channel_context import seal_context
from notifier.model.front_channel import FrontChannelContext
from notifier.operators.doctor.manual import parse_sections
from tests.monitoring.prometheus_server import Prometheus, prometheus
from tests.support.certificates import authority
from tests.support.softhsm import SoftHsm
from tests.system.clients import Clients, Hit
from tests.system.loopback import LoopbackServer
from tests.system.site import ISSUER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker
from tools.dashboard import build

pytestmark = pytest.mark.timeout(600)  # the first run on a machine installs Prometheus

FILE = Path(__file__).parents[2] / "deploy" / "grafana" / "notifier.json"
VARIABLES = {"$namespace": ".*", "$job": ".*", "$iss": ".*", "$client": ".*", "$__rate_interval": "15s"}


def test_file_equals_the_generated_dashboard() -> None:
    """`make dashboard` was run after the last change."""
    assert FILE.read_text() == build(), "run `make dashboard`"


def test_links_lead_to_a_section_of_the_runbook() -> None:
    """Of an alert by its name, or of the reason or cause of a series or row."""
    board = json.loads(FILE.read_text())
    fields = [panel.get("fieldConfig", {}).get("defaults", {}) for panel in board["panels"]]
    links = [link for field in fields for link in field.get("links") or []]
    assert len(links) >= 10
    named = {name.lower() for name in parse_sections()}
    for link in [*links, *board["links"]]:
        page, _, section = link["url"].partition("#")
        assert page == "https://notifier.example.org/docs/runbook.md"
        assert section in {"", *named} or section.endswith((".reason}", ".cause}")), section


def queries() -> list[str]:
    """Of all panels and marks, with the variables as they are when nothing is chosen."""
    board = json.loads(FILE.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    found += [mark["expr"] for mark in board["annotations"]["list"]]
    for name, value in VARIABLES.items():
        found = [query.replace(name, value) for query in found]
    return found


async def test_no_panel_is_without_data(tmp_path: Path) -> None:
    """Each query finds something where a worker delivers, retries and gives up, and a client recovers."""

    def judge(hit: Hit) -> int:
        comes_and_goes = 503 if hit.at % 8 < 4 else 204
        return {"/shop": 204, "/gone": 404, "/flaps": comes_and_goes}.get(hit.path, 503)

    site = Site(tmp_path, f"sqlite:{tmp_path}/notifier.db")
    pem = authority(tmp_path / "tls").issue("localhost")

    async def jwks(_request: web.BaseRequest) -> web.Response:
        return web.json_response(site.jwks(ISSUER))

    async with Clients(judge) as clients, LoopbackServer(jwks) as issuer:
        site.config["issuers"][ISSUER]["jwks_uri"] = f"{issuer.base}/jwks"
        key = site.serve_web(issuers={ISSUER: {"url": f"{ISSUER}/notify"}})
        hsm = SoftHsm(tmp_path / "hsm")
        site.config["issuers"][ISSUER]["keys"].append({"pkcs11": hsm.settings("rsa")})
        site.write()
        tls = {"cert_file": str(pem), "key_file": str(pem)}
        site.write_clients(
            [
                client("shop", clients.url("shop"), tls=tls),
                client("hsm", clients.url("shop")) | {"id_token_signed_response_alg": "RS256"},
                client("gone", clients.url("gone")),
                client("down", clients.url("down")),
                client("flaps", clients.url("flaps")),
                client("page", clients.url("shop")) | {"frontchannel_logout_uri": "https://page.example.com/"},
            ]
        )
        async with worker(site, settings=hsm.environ) as running:
            address = (await running.ops()).removeprefix("http://")
            async with prometheus(tmp_path, [address]) as server:
                await until(lambda: without_data(running, server, key), lambda missing: not missing, patience=90.0)
                await until(lambda: not_evaluated(server), lambda wrong: not wrong, patience=60.0)


async def show_page(running: WorkerProcess, key: bytes) -> None:
    """A browser opens a front-channel page, which reports."""
    context = FrontChannelContext(iss=ISSUER, sid="s", clients=(("page", None),))
    sealed = seal_context(context, MultiFernet([Fernet(key)]), time.time())
    face = (await running.until_logged("listening", lambda line: "web" in line))["web"]
    url, report = f"{face}/front-channel/{sealed}", {"how": "done", "clients": ["answered"]}
    async with aiohttp.ClientSession() as session:
        for asked, status in ((session.get(url), 200), (session.post(url, json=report), 204)):
            async with asked as answer:
                assert answer.status == status


async def without_data(running: WorkerProcess, server: Prometheus, key: bytes) -> Sequence[str]:
    """The queries that find nothing (yet). Another session ends meanwhile, since rates need steps."""
    now = dt.datetime.now(dt.UTC).isoformat()
    status, _ = await running.post({"iss": ISSUER, "sub": "u", "sid": "s", "clients": "*", "ended_at": now})
    assert status == 202
    await show_page(running, key)
    return [query for query in queries() if not await server.query(query)]


async def not_evaluated(server: Prometheus) -> Sequence[str]:
    """The rules that Prometheus could not evaluate, or has not yet."""
    groups = (await server.get("/api/v1/rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"]
