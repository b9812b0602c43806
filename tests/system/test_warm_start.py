"""A start with work waiting for many clients over TLS."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.certificates import authority
from tests.system.command import notifier_at
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker

pytestmark = pytest.mark.full

CLIENTS, DELIVERIES = 40, 400


class CountingServer(web.Server):
    """Answers every request with 204, and counts the connections: asyncio tells of one after its TLS handshake."""

    handshakes = 0

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count one more."""
        self.handshakes += 1
        super().connection_made(handler, transport)


async def answer(request: web.BaseRequest) -> web.Response:
    """Read the whole request."""
    await request.read()
    return web.Response(status=204)


@pytest.mark.parametrize("own_files", [False, True], ids=["one authority", "files of their own"])
async def test_the_first_deliveries_meet_no_storm_of_handshakes(tmp_path: Path, own_files: bool) -> None:
    """Every attempt is delivered within half of its deadline, and connections are used again.

    With files of its own (mutual TLS), each client needs a TLS context of its own.
    """
    ca = authority(tmp_path / "ca")
    mine = ca.issue("notifier").read_bytes()
    server, context = CountingServer(answer), ca.server(mutual=own_files)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    registrations = []
    for number in range(CLIENTS):
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024, ssl_context=context).start()
        tls = {"ca_file": str(ca.ca_file)}
        if own_files:
            cert = tmp_path / f"client-{number}.pem"
            cert.write_bytes(mine)
            tls["cert_file"] = str(cert)
        registrations.append(client(f"c{number}", f"https://127.0.0.1:{runner.addresses[-1][1]}/", tls=tls))
    site = Site(tmp_path, "sqlite:notifier.db")
    site.write_clients(registrations)
    # Each event has ten clients, taken in turn, so that every client is met early and often.
    events = (
        {"iss": ISSUER, "sub": "alice", "sid": f"s{first}", "clients": [f"c{(first + n) % CLIENTS}" for n in range(10)]}
        for first in range(0, DELIVERIES, 10)
    )
    lines = "\n".join(map(json.dumps, events))
    done = await notifier_at(site, "publish", "-", stdin=lines)
    assert done.returncode == 0
    async with worker(site) as running:
        await running.until_metric(DELIVERIES, "deliveries_settled_total", fate="delivered")
    attempts, deferrals = running.said("attempt"), running.said("deferral")  # a line may come after its metric
    await runner.cleanup()
    assert [attempt["reason"] for attempt in attempts] == ["delivered"] * DELIVERIES
    assert "tls_files" not in {deferral["cause"] for deferral in deferrals}
    assert max(attempt["seconds"] for attempt in attempts) < 2.5
    assert CLIENTS <= server.handshakes < DELIVERIES
