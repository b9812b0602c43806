"""Several addresses of one client: each has its own deliveries, and no list changes or adds one."""

import json
from pathlib import Path

import pytest
from aiohttp import web

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


@pytest.mark.full
async def test_trap_addresses_of_a_list_receive_nothing(tmp_path: Path) -> None:
    """A list sets `follows`, and has the id of a follower. `check` fails, and the log reports both."""
    async with Clients() as clients:

        async def listed(_request: web.Request) -> web.Response:
            trap = client("trap", clients.url("trap"), follows="shop")
            return page([client("shop", clients.url("shop")), trap, client("shop-us", clients.url("trap"))])

        async with serving(listed) as url:
            site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
            source = {"name": "theirs", "issuer": ISSUER, "http": {"url": f"{url}/clients"}}
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
                ignored = await running.until_logged("registry_source_beyond")
                assert ignored["reason"] == "notifier.follows: only a file may set it; it is ignored"
                checked = await notifier_at(site, "check")
                assert (checked.returncode, "only files define a follower" in checked.stderr) == (2, True)
                assert clients.at("trap") == []
