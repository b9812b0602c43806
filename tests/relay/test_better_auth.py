"""Better Auth, which sends each token once, within 5 s, while the user waits."""

import json
from pathlib import Path

import pytest

from notifier.model.client import Algorithm
from tests.relay.lab import CLIENTS, Kind, Lab, relay_lab

pytestmark = pytest.mark.timeout(300)
BETTER_AUTH = Kind(path="/api/auth", keys="/api/auth/jwks", algorithm=Algorithm.EDDSA, answers={"logout": "yes"})


async def run_better_auth(lab: Lab) -> dict[str, dict[str, str]]:
    """Run the server; return id and secret of each client."""
    clients = [{"name": name, "port": lab.client_ports[name], "pairwise": name == "mail"} for name in CLIENTS]
    await lab.run_script(
        "server", "better_auth.mjs", lab.own, CLIENTS=json.dumps(clients), LOGOUT_ADDRESS=lab.logout_address
    )
    return dict(json.loads(next(line for line in lab.log("server").splitlines() if line.startswith('{"shop"'))))


async def test_better_auth_sends_once_and_clients_that_were_down_end_their_sessions(
    tmp_path: Path, amqp_url: str, prefix: str
) -> None:
    """By EdDSA. Sessions that the user revokes from elsewhere end at the clients too."""
    async with relay_lab(tmp_path, BETTER_AUTH) as lab:
        made = await run_better_auth(lab)
        ids = {name: client["id"] for name, client in made.items()}
        lab.write_sites((amqp_url, prefix), lab.registry(pairwise=("mail",), ids=ids))
        async with lab.running_workers():
            for name, client in made.items():
                await lab.run_client(name, client["id"], client["secret"])
            assert len(await lab.read_keys()) == 2
            async with lab.browser() as alice:
                await lab.sign_out_with_client_down(alice)
            async with lab.browser() as alice:
                await lab.sign_in(alice, *CLIENTS)
                await alice.visit(f"http://127.0.0.1:{lab.own}/own/revoke-sessions")
                await lab.until_signed_out(alice, *CLIENTS)
            assert "answered 4" not in lab.log("server")
            assert "answered 5" not in lab.log("server")
