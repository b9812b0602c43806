"""The web face of a worker process: it listens where it is configured, and nowhere else."""

import contextlib
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

import aiohttp
from cryptography.fernet import Fernet, MultiFernet
from yarl import URL

from notifier.features.browsers.front_channel_context import seal_context
from notifier.model.front_channel import FrontChannelContext
from tests.features.registries.duende_tables import filled, recorded
from tests.support.proxies import ROOT, documented
from tests.system.command import notifier
from tests.system.site import ISSUER, Site
from tests.system.waiting import until
from tests.system.worker_process import worker


async def test_duende_redirect_uris_decide_who_may_check_sessions(tmp_path: Path) -> None:
    """By the page of a formula that binds no origin. What changes in the database changes there."""
    shop: dict[str, object] = {
        "ClientId": "shop",
        "BackChannelLogoutUri": "https://shop.example.com/bcl",
        "AllowedIdentityTokenSigningAlgorithms": "ES256",
        "redirects": ["https://shop.example.com/signin-oidc", "http://localhost:4200/callback"],
    }
    wiki: dict[str, object] = {
        "ClientId": "wiki",
        "FrontChannelLogoutUri": "https://wiki.example.com/out",
        "redirects": ["https://wiki.example.com/in"],
    }
    with contextlib.closing(sqlite3.connect(tmp_path / "ids.db", isolation_level=None)) as database:
        for statement in filled(recorded("is-7.4.8", "sqlite"), [shop, wiki]):
            database.execute(statement)
        site = Site(tmp_path, f"sqlite:{tmp_path}/q.db")
        sql = {"url": f"sqlite:///{tmp_path}/ids.db", "preset": "duende"}
        source = {"name": "ids", "issuer": ISSUER, "every": "300ms", "sql": sql}
        site.config["registry"] = {"cache": "cache", "sources": [source]}
        site.serve_web(check_session={"login": {"issuer": ISSUER, "formula": "keycloak"}})
        site.write()
        async with worker(site) as running, aiohttp.ClientSession() as session:
            url = await running.at("web")

            async def asked(client_id: str, origin: str) -> int:
                query = {"client_id": client_id, "origin": origin}
                async with session.get(f"{url}/check-session/login", params=query) as answer:
                    return answer.status

            for client_id, origin, status in (
                ("shop", "https://shop.example.com", 204), ("shop", "http://localhost:4200", 204),
                ("wiki", "https://wiki.example.com", 204), ("shop", "https://wiki.example.com", 403),
                ("shop", "http://localhost", 403), ("shop", "https://shop.example.com/", 403), ("shop", "null", 403),
                ("nobody", "https://shop.example.com", 403),
            ):  # fmt: skip
                assert await asked(client_id, origin) == status, (client_id, origin)
            moved = "https://store.example.com/signin-oidc", "https://shop.example.com/signin-oidc"
            database.execute("UPDATE ClientRedirectUris SET RedirectUri = ? WHERE RedirectUri = ?", moved)
            await until(lambda: asked("shop", "https://store.example.com"), lambda status: status == 204)
            assert await asked("shop", "https://shop.example.com") == 403
            assert await running.stop() == 0


HOSTILE = """x"'></script><script>alert(1)</script>\r\nX-Injected: 1"""


async def test_hostile_request_or_registration_injects_no_markup_or_header(tmp_path: Path) -> None:
    """Neither a name, a path, a query, a form, a `sid`, nor an address of a client; whatever the answer is."""
    site = Site(tmp_path, f"sqlite:{tmp_path}/q.db")
    check_session = {"login": {"issuer": ISSUER, "formula": "keycloak"}}
    pages = {ISSUER: {"url": f"{ISSUER}/connect/notify", "show_names": True}}
    key = site.serve_web(issuers=pages, check_session=check_session)
    sql = {"url": f"sqlite:///{tmp_path}/none.db", "query": "SELECT 'a' AS sub WHERE :sid <> ''"}
    iss = "https://op.example.com"
    op = {"issuer": iss, "client_id": "us", "iss": ISSUER, "resolve": {"sql": sql}, "front_channel": True}
    site.config["upstreams"] = {"op": op}
    site.write()
    front = {"client_id": HOSTILE.partition("\r")[0], "client_name": HOSTILE, "issuer": ISSUER}
    site.write_clients(
        [{**front, "frontchannel_logout_uri": "https://a.example.com/o?q='\"><script>alert(1)</script>"}]
    )
    context = FrontChannelContext(iss=ISSUER, sid=HOSTILE, clients=((front["client_id"], HOSTILE),))
    sealed, given = (
        seal_context(context, MultiFernet([Fernet(key)]), time.time()),
        {"client_id": HOSTILE, "origin": HOSTILE},
    )
    async with worker(site) as running, aiohttp.ClientSession() as session:
        url = await running.at("web")
        strange, asked_by_browser = quote(HOSTILE, ""), "upstreams/op/frontchannel-logout"
        for method, path, query, form, status in (
            ("GET", f"front-channel/{sealed}", {}, None, 200), ("GET", f"front-channel/{strange}", {}, None, 400),
            ("POST", f"front-channel/{sealed}", {}, {"v": HOSTILE}, 400),
            ("GET", "check-session/login", given, None, 403), ("GET", "check-session/login", {"x": HOSTILE}, None, 200),
            ("GET", f"check-session/{strange}", {}, None, 404),
            ("GET", asked_by_browser, {"iss": iss, "sid": HOSTILE}, None, 400),
            ("GET", asked_by_browser, {"iss": iss, "sid": HOSTILE.partition("\r")[0]}, None, 503),
            ("GET", asked_by_browser, {"iss": HOSTILE, "sid": "s"}, None, 400),
            ("POST", "upstreams/op/backchannel-logout", {}, {"logout_token": HOSTILE}, 400),
            ("POST", f"upstreams/{strange}/backchannel-logout", {}, {"logout_token": "a"}, 404),
        ):  # fmt: skip
            async with session.request(method, URL(f"{url}/{path}", encoded=True), params=query, data=form) as answer:
                text = await answer.text()
                assert answer.status == status, (path, query, form)
                assert (text.count("script>alert(1)") >= 3) == (path == f"front-channel/{sealed}" and status == 200)
                assert "<script>alert" not in text, text
                assert "X-Injected" not in answer.headers
                assert (answer.headers["X-Content-Type-Options"], "default-src 'none'") == (
                    "nosniff",
                    answer.headers["Content-Security-Policy"].partition(";")[0],
                )
        assert await running.stop() == 0


def test_documented_web_example_passes_check(tmp_path: Path) -> None:
    """With a new key for pages, created as documented; and the documents show the same."""
    example = (ROOT / "docs/examples/web.yaml").read_text()
    shown = documented("yaml")
    assert [line for line in shown.splitlines() if line not in example.splitlines()] == []
    key = notifier("keys", "web", cwd=tmp_path).stdout
    clients = (
        '[{"client_id": "shop", "frontchannel_logout_uri": "https://shop.example.com/out"}, {"client_id": "none"}]'
    )
    for name, content in {"web.keys": key, "clients.yaml": clients, "web.yaml": example}.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    notifier("keys", "generate", "--out", "key.pem", "--at", "once", cwd=tmp_path)
    checked = notifier("check", "-c", "web.yaml", cwd=tmp_path)
    assert checked.stdout.startswith("no mistakes\nissuer https://login.example.com"), (checked.stdout, checked.stderr)
    assert "web listens on 127.0.0.1:8090" in checked.stdout
    assert "(1 notified only by browsers; 1 without backchannel_logout_uri, never notified)" in checked.stdout
