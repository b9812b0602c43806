"""Addresses in events: only those of the identity server and the operator count."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.system.broker import broker
from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker


def event(sid: str, *clients: object) -> dict[str, object]:
    """One session."""
    return {"id": f"e-{sid}", "iss": ISSUER, "sub": "alice", "sid": sid, "clients": clients}


def output(clients: Clients, name: str, path: str) -> dict[str, object]:
    """An entry with an address of the client."""
    return {
        "client_id": name,
        "backchannel_logout_uri": clients.url(path),
        "id_token_signed_response_alg": "ES256",
    }


async def commanded(site: Site, *words: str) -> str:
    """What a command prints."""
    done = await notifier_at(site, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.full
async def test_address_from_an_unlisted_publisher_gets_no_token(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """A known client is notified at its registered address. Log, status and dead letter name the remedy.

    Once the publisher is listed, the replay of that dead letter and each new event use the address of the event.
    """
    who = urlsplit(amqp_url).username or "guest"
    async with Clients() as clients, broker(amqp_url, prefix) as rabbit:
        site = Site(tmp_path, amqp_url, prefix)
        site.write_clients([client("shop", clients.url("shop"))])
        async with worker(site) as running:
            await rabbit.publish(event("s1", output(clients, "shop", "evil")), user_id=who)
            await rabbit.publish(event("s2", output(clients, "kubernetes", "evil")), user_id=who)
            assert (await running.post(event("s3", output(clients, "shop", "evil"))))[0] == 202
            await clients.until_notified("shop", ["s1", "s3"])
            await running.until_metric(2, "events_unheard_total")
            ignored = {line["event_id"]: line for line in running.logged("members_ignored")}
            assert ignored.keys() == {"e-s1", "e-s3"}
            for line in ignored.values():
                assert line["members"] == "shop: backchannel_logout_uri"  # its algorithm is the registered one
                assert "registry.inline" in line["hint"]
                assert "evil" not in str(line)
            assert ignored["e-s1"]["publisher"] == who
            await running.until_logged("deferral", lambda line: "registry.inline" in line["error"])
            assert "registry.inline" in await commanded(site, "status", "--json")
            [dead_letter] = await rabbit.until_dead(1)
            text = json.loads(dead_letter.body)["text"]
            assert f'issuers["{ISSUER}"].publishers' in text
            assert who in text
            assert clients.notified("evil") == []

            site.config["issuers"][ISSUER]["publishers"] = [who]
            site.write()
            await running.until_logged("reloaded")
            await commanded(site, "dead-letters", "replay", "--reason", "unknown_client")
            await clients.until_notified("evil", ["s2"])
            await rabbit.publish(event("s4", output(clients, "kubernetes", "evil")), user_id=who)
            await clients.until_notified("evil", ["s2", "s4"])
        assert clients.notified("shop") == ["s1", "s3"]
