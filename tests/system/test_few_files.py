"""A worker with a low limit of open files."""

import asyncio
import contextlib
from pathlib import Path
from urllib.parse import urlsplit

from tests.system.clients import Clients
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import console_script, worker

LIMIT = 256


async def test_connections_of_strangers_leave_files_to_deliveries(tmp_path: Path) -> None:
    """More connections than files: the oldest are closed, events are accepted and delivered, and probes answered."""
    async with Clients() as clients, contextlib.AsyncExitStack() as stack:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        names = [f"app-{number}" for number in range(20)]
        site.write_clients([client(name, clients.url(name)) for name in names])
        few_files = ["sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "few-files", *console_script()]
        async with worker(site, command=few_files) as running:
            api = urlsplit(await running.at("api"))
            for _ in range(LIMIT + 50):
                _, writer = await asyncio.open_connection(api.hostname, api.port)
                stack.callback(writer.close)
            event = {"id": "e1", "iss": ISSUER, "sub": "u", "sid": "s1", "clients": names}
            assert (await running.post(event))[0] == 202
            for name in names:
                await clients.until_notified(name, ["s1"])
            assert (await running.get("/livez"))[0] == 200
            assert await running.metric("deferrals_total") == 0
            assert await running.descriptors() < LIMIT / 2
            assert await running.stop() == 0
