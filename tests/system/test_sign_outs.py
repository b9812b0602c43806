"""`POST /v1/sign-outs` of a worker: back-channel clients are notified, and the URL opens by the worker's key."""

import time
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.fernet import Fernet, MultiFernet

from notifier.features.browsers.front_channel_context import open_context
from notifier.model.moment import format_moment
from tests.system.clients import Clients
from tests.system.site import ISSUER, OTHER, Site, client
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


async def test_one_call_publishes_the_event_and_returns_the_page(place: tuple[str, str], tmp_path: Path) -> None:
    """With `wait` the answer also has the results of back-channel clients."""
    async with Clients() as clients:
        site, key = site_of(tmp_path, clients, *place)
        async with worker(site) as running:
            await running.until_ready()
            status, reported = await running.ask("POST", "/v1/sign-outs?wait=20s", body=EVENT)
            assert (status, reported["complete"]) == (200, True)
            fates = {each["client_id"]: each["fate"] for each in reported["clients"]}
            assert fates == {"shop": "delivered", "billing": "skipped"}
            page = reported["front_channel"]
            assert page["clients"] == 1
            assert page["url"].startswith(f"{PAGES}/front-channel/")
            sealed = urlsplit(page["url"]).path.rpartition("/")[2]
            opened = open_context(sealed, MultiFernet([Fernet(key)]), time.time())
            assert opened is not None
            assert page["until"] == format_moment(opened.expires_at)[:19] + "Z"
            assert (opened.context.sid, opened.context.clients) == ("s1", (("billing", None),))
            assert await running.stop() == 0


async def test_ignored_front_channel_address_is_logged_and_counted(tmp_path: Path) -> None:
    """The note names it, and the page has the other clients. Each reason has a log line, without addresses."""
    site = Site(tmp_path, f"sqlite:{tmp_path}/q.db")
    pages = {iss: {"url": f"{iss}/connect/notify"} for iss in (ISSUER, OTHER)}
    (tmp_path / "own.keys").write_bytes(site.serve_web(issuers=pages))
    (tmp_path / "own.keys").chmod(0o600)
    site.serve_web(issuers=pages)
    pages[ISSUER]["keys_file"] = "own.keys"
    site.config["issuers"][ISSUER]["publishers"] = ["idp"]
    site.write()
    entries = [
        {"client_id": name, "backchannel_logout_uri": None, "frontchannel_logout_uri": uri}
        for name, uri in (("new", "https://new.example.net/out"), ("evil", f"{ISSUER}:8443/out"))
    ]
    async with worker(site) as running:
        status, reported = await running.ask("POST", "/v1/sign-outs", body={**EVENT, "clients": entries})
        assert (status, reported["front_channel"]["clients"]) == (202, 1)
        assert "leaves out 1 client whose address does not count (evil): it is on id.example.com" in reported["note"]
        status, reported = await running.ask("POST", "/v1/sign-outs", body={**EVENT, "iss": OTHER, "clients": entries})
        assert (status, reported["front_channel"]) == (202, None)
        assert "(new, evil): an event's address counts from the identity server alone" in reported["note"]
        for reason, count in (("own_host", 1), ("speaker", 2)):
            assert await running.metric("front_channel_left_out_total", reason=reason) == count
        text = running.logged("front_channel_left_out")
        assert [(line["iss"], line["reason"], line["clients"]) for line in text] == [
            (ISSUER, "own_host", 1), (OTHER, "speaker", 2),
        ]  # fmt: skip
        assert "https://new" not in str(text)
        assert await running.stop() == 0
