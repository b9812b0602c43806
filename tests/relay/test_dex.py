"""Dex, which sends each token once, within 5 s for all clients together."""

import json
import signal
from pathlib import Path

import pytest

from notifier.model.client import Algorithm
from tests.relay.dex_program import found_dex
from tests.relay.lab import CLIENTS, SECRET, Kind, Lab, relay_lab
from tests.system.waiting import until

pytestmark = pytest.mark.timeout(300)
DEX = Kind(
    path="/dex",
    keys="/dex/keys",
    algorithm=Algorithm.RS256,
    answers={"login": "alice@example.com", "password": "password"},
)


async def run_dex(lab: Lab) -> None:
    """Run the server."""
    clients = [
        {
            "id": name,
            "name": name,
            "secret": SECRET,
            "redirectURIs": [f"{lab.client_url(name)}/callback"],
            "postLogoutRedirectURIs": [lab.client_url(name)],
            "backchannelLogoutURI": lab.logout_address,
        }
        for name in CLIENTS
    ]
    await lab.start(
        "server", [found_dex(), f"127.0.0.1:{lab.own}"], lab.own,
        ISSUER=lab.issuer, CLIENTS=json.dumps(clients), DEX_SESSIONS_ENABLED="true",
    )  # fmt: skip


async def test_dex_sends_once_and_clients_that_were_down_end_their_sessions(
    tmp_path: Path, amqp_url: str, prefix: str
) -> None:
    """Its tokens have no `typ`. A rotation shows at once: Dex signs by a new key as soon as it is published."""
    async with relay_lab(tmp_path, DEX) as lab:
        await run_dex(lab)
        lab.write_sites((amqp_url, prefix), lab.registry())
        async with lab.running_workers():
            for name in CLIENTS:
                await lab.run_client(name)
            before, own = await lab.read_keys()
            async with lab.browser() as alice:
                await lab.sign_out_with_client_down(alice)
            lab.send("server", signal.SIGHUP)
            rotated = await until(lab.read_keys, lambda kids: len(kids) == 3)
            assert {before, own} < set(rotated)
            async with lab.browser() as alice:
                await lab.sign_out_with_client_down(alice)
            assert "rejected" not in lab.log("server")
