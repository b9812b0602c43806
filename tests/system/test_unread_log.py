"""A worker whose log nobody reads goes on."""

import asyncio
import os
import signal
from pathlib import Path

from tests.system.clients import Clients
from tests.system.site import ISSUER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import console_script, worker

CLIENTS, EVENTS = 20, 20  # lines of 400 bytes and more for each pair: twice what a pipe holds
THROUGH_A_READER = 'exec 2> >(echo "$BASHPID" > reader.pid; exec cat >&2); exec "$@"'


async def test_a_worker_goes_on_while_nobody_reads_its_log(tmp_path: Path) -> None:
    """It answers probes and delivers; the lines wait in memory, and none of them is lost."""
    async with Clients() as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        site.config["log"]["level"] = "info"
        site.write()
        names = [f"app-{number}" for number in range(CLIENTS)]
        site.write_clients([client(name, clients.url(name)) for name in names])
        through_a_reader = ["bash", "-c", THROUGH_A_READER, "reader", *console_script()]
        async with worker(site, command=through_a_reader) as running:
            reader = int((tmp_path / "reader.pid").read_text())
            os.kill(reader, signal.SIGSTOP)
            try:
                async with asyncio.timeout(60):
                    for number in range(EVENTS):
                        event = {"id": f"e{number}", "iss": ISSUER, "sub": "u", "sid": f"s{number}", "clients": names}
                        assert (await running.post(event))[0] == 202
                    await until(lambda: asyncio.sleep(0, len(clients.hits)), lambda hits: hits == CLIENTS * EVENTS)
                    assert (await running.get("/livez"))[0] == 200
                    assert await running.metric("log_lines_dropped_total") == 0
            finally:
                os.kill(reader, signal.SIGCONT)
            assert await running.stop() == 0
            assert len(running.logged("attempt")) == CLIENTS * EVENTS
