"""The file of the embedded queue is moved away below a worker: nothing is confirmed that nobody will read."""

import asyncio
import json
from pathlib import Path

from tests.system.command import notifier
from tests.system.site import Site
from tests.system.waiting import until
from tests.system.worker_process import worker


def move(file: Path, name: str) -> bool:
    """Within its folder. Returns whether anything is where it was."""
    file.rename(file.with_name(name))
    return file.exists()


async def test_a_moved_file_is_told_by_all(tmp_path: Path) -> None:
    """Probe and API answer 503 within a second, `publish` fails and creates no file. Moved back, all is well."""
    file = tmp_path / "queue.db"
    site = Site(tmp_path, f"sqlite:{file}")
    event = {"iss": "https://id.example.com", "sub": "alice", "clients": ["shop"]}

    async def published() -> tuple[int, str]:
        done = await asyncio.to_thread(
            notifier, "publish", "-c", site.file, cwd=tmp_path, stdin=json.dumps(event), settings={"COLUMNS": "250"}
        )
        return done.returncode, done.stdout + done.stderr

    async with worker(site) as running:
        await running.until_ready()
        assert not move(file, "away.db")
        await until(lambda: running.get("/readyz"), lambda told: told[0] == 503 and f"{file} is gone" in told[1])
        assert (await running.post(event))[0] == 503
        status, printed = await published()
        assert (status, f"{file} is gone" in printed) == (1, True), printed
        assert not move(file.with_name("away.db"), file.name)
        await until(lambda: running.get("/readyz"), lambda told: told[0] == 200)
        assert (await running.post(event))[0] == 202
        assert (await published())[0] == 0
