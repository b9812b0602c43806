"""The server that lists the clients fails under load: workers go on with its last list, and nothing is lost."""

from pathlib import Path

import pytest
from aiohttp import web

from tests.faults.conftest import Tell
from tests.faults.embedded_rig import embedded
from tests.faults.rig import CLIENTS, kill, load
from tests.features.registries.list_server import page, serving
from tests.system.site import ISSUER, client
from tests.system.worker_process import worker


@pytest.mark.fault("registry", "the server that lists the clients is down, and the worker is killed and started again")
@pytest.mark.timeout(600)
async def test_the_last_list_serves_the_next_worker_too(tmp_path: Path, tell: Tell) -> None:
    """The first worker keeps the list in memory, the second reads it from the cache."""
    down = False
    async with embedded(tmp_path) as made:

        async def listed(_request: web.Request) -> web.StreamResponse:
            rows = [client(name, made.clients.url(name)) for name in CLIENTS]
            return web.Response(status=500) if down else page(rows)

        async with serving(listed) as url:
            source = {"name": "theirs", "issuer": ISSUER, "every": "300ms", "http": {"url": f"{url}/clients"}}
            made.site.config["registry"] = {"cache": "cache", "grace": "5m", "sources": [source]}
            made.site.write()
            async with load(made.publisher, rate=40) as end:
                async with worker(made.site) as running:
                    down = True
                    await running.until_said("registry_source_failed")
                    await running.until_metric(0, "registry_source_up", source="theirs")
                    await made.more(60)
                    await kill(running)
                async with worker(made.site) as running:
                    await running.until_said("registry_source_failed")
                    await end()
                    await made.until_settled()
                    assert await running.metric("registry_source_age_seconds") > 0
                    assert await running.stop() == 0
        tell(await made.account(cause="held by a worker that was killed"))
