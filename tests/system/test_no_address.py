"""A client of which the event says that it has no address: it is skipped and counted, and never unknown.

Whoever names all clients of a session would else have every sign-out become a dead letter for one of them.
"""

import asyncio
import json
from pathlib import Path

from tests.system.broker import broker
from tests.system.clients import Clients, Hit
from tests.system.command import notifier
from tests.system.site import ISSUER, Site, client
from tests.system.test_sources_http import ask
from tests.system.worker_process import worker

SECRET = "source-secret-3d0f"
MANY = 150  # more than are kept in one event


def silent(name: str = "spa") -> dict[str, object]:
    """An entry as publishers write it."""
    return {"client_id": name, "backchannel_logout_uri": None}


def event(sid: str, *clients: object) -> dict[str, object]:
    """One session."""
    return {"id": f"e-{sid}", "iss": ISSUER, "sub": "alice", "sid": sid, "clients": clients}


async def test_it_is_skipped_however_it_comes_unless_the_registry_knows_one(
    tmp_path: Path, amqp_url: str, prefix: str
) -> None:
    """By AMQP, over HTTP, from a source, in the parts of a large event, in a replay; with a registry and without."""

    def judge(hit: Hit) -> int:
        return 410 if hit.who == "s6" else 200

    async with Clients(judge) as clients, broker(amqp_url, prefix) as rabbit:
        site = Site(tmp_path, amqp_url, prefix)
        shop = {
            "client_id": "shop",
            "backchannel_logout_uri": clients.url("shop"),
            "id_token_signed_response_alg": "ES256",
        }
        (tmp_path / "secret").write_text(SECRET)
        site.config["sources"] = {
            "web": {
                "issuer": ISSUER,
                "event": {
                    "sub": "user",
                    "sid": "session",
                    "clients": "apps[].{client_id: name, backchannel_logout_uri: url,"
                    " id_token_signed_response_alg: alg}",
                },
                "http": {"header": "Authorization", "value_file": "secret"},
            }
        }
        site.config["registry"] = {"grace": "1s", "inline": "allow"}
        site.write()
        async with worker(site) as running:
            await rabbit.publish(event("s1", silent(), shop))
            assert (await running.post(event("s2", silent(), shop)))[0] == 202
            apps = [{"name": "spa"}, {"name": "shop", "url": clients.url("shop"), "alg": "ES256"}]
            posted = json.dumps({"user": "alice", "session": "s3", "apps": apps}).encode()
            assert (await ask(running, "web", posted, Authorization=SECRET))[0] == 202
            await rabbit.publish(event("s4", *(silent(f"spa-{n}") for n in range(MANY)), shop))
            await clients.until_told("shop", ["s1", "s2", "s3", "s4"])
            await running.until_metric(3 + MANY, "deliveries_settled_total", fate="skipped")

            site.write_clients([client("spa", clients.url("registered"))])
            site.config["registry"] = {"grace": "1s", "file": "clients.yaml"}
            site.write()
            await running.until_said("reloaded", lambda line: line["clients"] == 1)
            for sid in ("s5", "s6"):
                await rabbit.publish(event(sid, silent()))
            await clients.until_told("registered", ["s5", "s6"])
            await rabbit.until_dead(1)  # s6: 410

            site.write_clients([client(name, clients.url(name)) for name in ("mail", "news")])
            site.config["registry"]["inline"] = "deny"
            site.write()
            await running.until_said("reloaded", lambda line: line["clients"] == 2)
            await rabbit.publish(event("s7", silent(), "mail"))
            await clients.until_told("mail", ["s7"])
            done = await asyncio.to_thread(
                notifier, "dead-letters", "replay", "-c", site.file, "--client-id", "spa", cwd=tmp_path
            )
            assert done.returncode == 0, done.stderr
            await running.until_metric(5 + MANY, "deliveries_settled_total", fate="skipped")
            await rabbit.until_depths({})
            assert running.said("deferral") == []  # none was ever unknown
            assert [line["reason"] for line in running.said("dead_letter")] == ["refused"]
        assert sorted(clients.told("shop")) == ["s1", "s2", "s3", "s4"]
        assert sorted(clients.told("registered")) == ["s5", "s6"]
