"""`POST /v1/sign-outs` of a running worker: clients are told by back-channel, and the URL opens by the worker's key."""

import time
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.fernet import Fernet, MultiFernet

from notifier.features.browsers.front_channel_context import open_sealed
from notifier.model.moment import render_moment
from tests.system.clients import Clients
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker

PAGES = f"{ISSUER}/connect/notify"
EVENT = {"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop", "billing"], "id": "e-1"}


def site_of(folder: Path, clients: Clients, url: str, prefix: str = "notifier") -> tuple[Site, bytes]:
    """A site with pages, and the key by which their URLs are sealed."""
    site = Site(folder, url, prefix)
    key = site.serve_web(issuers={ISSUER: {"url": f"{PAGES}/"}})
    site.write()
    browser = {"client_id": "billing", "issuer": ISSUER, "frontchannel_logout_uri": "https://billing.example.net/out"}
    site.write_clients([client("shop", clients.url("shop")), browser])
    return site, key


async def test_one_call_publishes_the_event_and_gives_the_page(place: tuple[str, str], tmp_path: Path) -> None:
    """With `wait` it also tells what became of the clients that are told by back-channel."""
    async with Clients() as clients:
        site, key = site_of(tmp_path, clients, *place)
        async with worker(site) as running:
            await running.until_ready()
            status, told = await running.ask("POST", "/v1/sign-outs?wait=20s", body=EVENT)
            assert (status, told["complete"]) == (200, True)
            fates = {each["client_id"]: each["fate"] for each in told["clients"]}
            assert fates == {"shop": "delivered", "billing": "skipped"}
            page = told["front_channel"]
            assert page["clients"] == 1
            assert page["url"].startswith(f"{PAGES}/front-channel/")
            sealed = urlsplit(page["url"]).path.rpartition("/")[2]
            opened = open_sealed(sealed, MultiFernet([Fernet(key)]), time.time())
            assert opened is not None
            assert page["until"] == render_moment(opened.until)[:19] + "Z"
            assert (opened.context.sid, opened.context.clients) == ("s1", (("billing", None),))
            assert await running.stop() == 0
