"""The feature that CONTRIBUTING.md shows works as it stands there, by its folder and its line in the list alone."""

import re
import shutil
import sys
import time
from datetime import datetime
from pathlib import Path

from tests.system.clients import Clients
from tests.system.site import ISSUER, OTHER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import worker

ROOT = Path(__file__).parents[2]
FILE = re.compile(r"`(quiet/\w+\.py)`.*?```python\n(.*?)```", re.DOTALL)
TOKENS = """
- {name: idp, token: of-the-identity-server, scopes: [publish]}
- {name: sre, token: of-an-operator, scopes: [read]}
- {name: one, token: of-an-operator-of-one, scopes: [read], issuers: [https://id.example.com]}
"""


def with_feature(place: Path) -> Path:
    """A copy of the package with the feature in it."""
    shutil.copytree(ROOT / "notifier", place / "notifier")
    for name, text in FILE.findall((ROOT / "CONTRIBUTING.md").read_text()):
        (place / "notifier/features" / name).parent.mkdir(exist_ok=True)
        (place / "notifier/features" / name).write_text(text)
    (place / "notifier/features/quiet/__init__.py").touch()
    features = place / "notifier/features/__init__.py"
    text = features.read_text()
    text = text.replace("\n\nFEATURES", "\nfrom notifier.features.quiet.quiet_feature import QUIET\n\nFEATURES")
    features.write_text(text.replace("= (\n", "= (\n    QUIET,\n"))
    return place


async def test_the_feature_of_the_page_works(tmp_path: Path) -> None:
    """Its metric, its route and its observer, on the embedded queue. It began with the worker, and follows events."""
    package = with_feature(tmp_path)
    async with Clients() as clients:
        (tmp_path / "site").mkdir()
        site = Site(tmp_path / "site", f"sqlite:{tmp_path / 'q.db'}")
        (site.folder / "tokens.yaml").write_text(TOKENS)
        site.write_clients([client("shop", clients.url("shop"))])
        before = time.time()
        words = (sys.executable, "-m", "notifier")
        async with worker(site, command=words, settings={"PYTHONPATH": str(package)}) as running:
            status, first = await running.ask("GET", "/v1/last-events", "of-an-operator")
            assert (status, set(first)) == (200, {ISSUER, OTHER})
            assert all(before < datetime.fromisoformat(at).timestamp() < time.time() for at in first.values())
            event = {"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop"]}
            assert (await running.ask("POST", "/v1/events", "of-the-identity-server", event))[0] == 202
            await clients.until_notified("shop", ["s1"])
            began = await running.metric("last_event_timestamp_seconds", iss=OTHER)
            last = await until(
                lambda: running.metric("last_event_timestamp_seconds", iss=ISSUER), lambda at: at > began
            )
            status, document = await running.ask("GET", "/v1/last-events", "of-an-operator-of-one")
            assert (status, set(document)) == (200, {ISSUER})
            assert abs(datetime.fromisoformat(document[ISSUER]).timestamp() - last) < 0.001
            assert (await running.ask("GET", "/v1/last-events", "of-the-identity-server"))[0] == 403
            _, api = await running.ask("GET", "/v1/openapi.json")
            assert "/v1/last-events" in api["paths"]
            assert await running.stop() == 0
