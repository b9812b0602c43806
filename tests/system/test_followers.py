"""Several addresses of one client: each has its own deliveries, and no list changes or adds one."""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.features.registries.fake_keycloak import SECRET, fake_keycloak
from tests.features.registries.fake_keycloak import client as keycloak_client
from tests.features.registries.list_server import page, serving
from tests.support.verifier import verify
from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.site import API_TOKEN, ISSUER, Site, client
from tests.system.test_retry import Answers
from tests.system.waiting import until
from tests.system.worker_process import worker


def _event(number: int, *clients: str) -> dict[str, object]:
    return {"id": f"e{number}", "iss": ISSUER, "sub": "alice", "sid": f"s{number}", "clients": [*clients]}


async def test_failing_address_of_a_client_does_not_affect_another(tmp_path: Path) -> None:
    """The other is notified at once. The dead letter is of the failing address only, and its replay too."""
    answers = Answers(**{"shop": 403, "shop-us": 200})
    async with Clients(answers) as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        tokens = [{"name": "idp", "token": API_TOKEN, "scopes": ["publish", "read", "repair"]}]
        (tmp_path / "tokens.yaml").write_text(json.dumps(tokens))
        own = {"client_id": "shop-us", "backchannel_logout_uri": clients.url("shop-us"), "issuer": ISSUER}
        site.write_clients([client("shop", clients.url("shop")), own | {"notifier": {"follows": "shop"}}])
        async with worker(site) as running:
            assert (await running.post(_event(1, "shop")))[0] == 202
            await clients.until_notified("shop-us", ["s1"])
            await until(lambda: running.ask("GET", "/v1/dead-letters"), lambda answer: answer[1]["total"] == 1)
            _, letters = await running.ask("GET", "/v1/dead-letters")
            assert [group["client_id"] for group in letters["groups"]] == ["shop"]
            answers.by_path |= {"shop": 200, "shop-us": 503}
            assert (await running.post(_event(2, "shop")))[0] == 202
            await clients.until_notified("shop", ["s2"])
            done = await notifier_at(site, "dead-letters", "replay", "--client-id", "shop")
            assert "1 delivered" in done.stdout, done.stdout + done.stderr
            assert (clients.notified("shop"), clients.notified("shop-us")[:2]) == (["s1", "s2", "s1"], ["s1", "s2"])
            answers.by_path["shop-us"] = 200
            await running.until_metric(4, "deliveries_settled_total", fate="delivered")
            assert "s1" not in clients.notified("shop-us")[1:]
            for hit in clients.hits:
                verify(hit.token, site.jwks(ISSUER), iss=ISSUER, aud="shop", now=hit.at)
            shown = await notifier_at(site, "clients", "show", "shop-us", "--json")
            [values] = [each["values"] for each in json.loads(shown.stdout)]
            assert {"member": "id_token_signed_response_alg", "value": "ES256", "from": "shop (followed)"} in values
            _, document = await running.ask("GET", f"/v1/client/registration?client_id=shop-us&iss={ISSUER}")
            assert document["values"] == values
            assert await running.stop() == 0


async def test_event_for_all_clients_includes_a_follower_without_a_leader(tmp_path: Path) -> None:
    """Its delivery waits as that of an unknown client, and is made once a file has the leader."""
    async with Clients() as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        site.config["registry"]["grace"] = "5m"
        site.write()
        follower = client("shop-us", clients.url("shop-us"), follows="shop")
        site.write_clients([client("wiki", clients.url("wiki")), follower])
        async with worker(site) as running:
            assert (await running.post(_event(1) | {"clients": "*"}))[0] == 202
            await clients.until_notified("wiki", ["s1"])
            deferral = await running.until_logged("deferral")
            assert (deferral["client_id"], deferral["cause"]) == ("shop-us", "unknown")
            site.write_clients([client("shop", clients.url("shop")), follower])
            await running.until_logged("reloaded")
            await clients.until_notified("shop-us", ["s1"])
            assert clients.at("shop") == []


Row = dict[str, Any]


def _has_reason(reason: str, line: Row) -> bool:
    return bool(line["reason"] == reason)


@asynccontextmanager
async def _http_list(rows: list[Row], _folder: Path) -> AsyncIterator[Row]:
    async def listed(_request: web.Request) -> web.Response:
        return page(rows)

    async with serving(listed) as url:
        yield {"http": {"url": f"{url}/clients"}}


@asynccontextmanager
async def _sql_list(rows: list[Row], folder: Path) -> AsyncIterator[Row]:
    columns = [*rows[0]]
    with closing(sqlite3.connect(folder / "list.db")) as database, database:
        database.execute(f"CREATE TABLE list ({', '.join(columns)})")
        for row in rows:
            values = [json.dumps(value) if isinstance(value, dict) else value for value in row.values()]
            database.execute(f"INSERT INTO list VALUES ({', '.join('?' * len(columns))})", values)
    yield {"sql": {"url": f"sqlite:///{folder}/list.db", "query": f"SELECT {', '.join(columns)} FROM list"}}


@asynccontextmanager
async def _keycloak_list(rows: list[Row], _folder: Path) -> AsyncIterator[Row]:
    async with fake_keycloak(0) as fake:
        for row in rows:
            attributes = {
                "backchannel.logout.url": row["backchannel_logout_uri"],
                "id.token.signed.response.alg": row["id_token_signed_response_alg"],
            }
            own = {f"notifier.{name}": value for name, value in row["notifier"].items()}
            texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in own.items()}
            fake.clients[row["client_id"]] = keycloak_client(row["client_id"], attributes=attributes | texts)
        settings = {"url": fake.url, "realm": "demo", "client_id": "notifier", "client_secret": SECRET}
        yield {"keycloak": settings}


@pytest.mark.full
@pytest.mark.parametrize("listing", [_http_list, _sql_list, _keycloak_list])
async def test_trap_addresses_of_a_list_receive_nothing(
    tmp_path: Path, listing: Callable[[list[Row], Path], AbstractAsyncContextManager[Row]]
) -> None:
    """A list sets `follows` and `channel`, and has the id of a follower. `check` fails, and the log reports each."""
    async with Clients() as clients:
        trap = clients.url("trap")
        rows: list[Row] = [
            client("shop", clients.url("shop"), channel={"security_event": {"uri": trap}}),
            client("trap", trap, follows="shop"),
            client("shop-us", trap),
        ]
        async with listing(rows, tmp_path) as settings:
            site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
            source = {"name": "theirs", "issuer": ISSUER, **settings}
            site.config["registry"] = {"grace": "5m", "sources": [source, {"file": "clients.yaml"}]}
            site.write()
            site.write_clients([client("shop-us", clients.url("shop-us"), follows="shop")])
            async with worker(site) as running:
                assert (await running.post(_event(1, "shop")))[0] == 202
                await clients.until_notified("shop", ["s1"])
                await clients.until_notified("shop-us", ["s1"])
                await running.until_metric(2, "deliveries_settled_total", fate="delivered")
                left_out = await running.until_logged("client_left_out")
                assert "only files define a follower" in json.dumps(left_out)
                for member in ("follows", "channel"):
                    ignored = f"notifier.{member}: only a file may set it; it is ignored"
                    await running.until_logged("registry_source_beyond", partial(_has_reason, ignored))
                checked = await notifier_at(site, "check")
                assert (checked.returncode, "only files define a follower" in checked.stderr) == (2, True)
                assert clients.at("trap") == []
