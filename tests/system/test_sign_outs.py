"""`POST /v1/sign-outs` of a running worker: clients are told by back-channel, and the URL opens by the worker's key."""

import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from cryptography.fernet import Fernet, MultiFernet

from notifier.features.browsers.front_channel_context import open_sealed, seal
from notifier.model.client import FrontChannelClient
from notifier.model.front_channel import FrontChannelContext
from notifier.model.moment import render_moment
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


def sealed_by(key: bytes, iss: str, **brought: str) -> str:
    """The context of a page whose clients come with these addresses."""
    fronts: Mapping[str, FrontChannelClient] = {
        name: FrontChannelClient(frontchannel_logout_uri=uri) for name, uri in brought.items()
    }
    context = FrontChannelContext(iss=iss, sid="s1", clients=tuple((name, None) for name in brought), brought=fronts)
    return seal(context, MultiFernet([Fernet(key)]), time.time())


async def test_clients_come_with_their_addresses(tmp_path: Path) -> None:
    """By the event of the identity server, and by a key of its own: nobody else has a browser call what he likes.

    What does not count is in the answer, the log and the metrics, and the other clients are asked.
    """
    site = Site(tmp_path, f"sqlite:{tmp_path}/q.db")
    pages = {iss: {"url": f"{iss}/connect/notify"} for iss in (ISSUER, OTHER)}
    own, shared = Fernet.generate_key(), site.serve_web(issuers=pages)
    (tmp_path / "own.keys").write_bytes(own)
    (tmp_path / "own.keys").chmod(0o600)
    pages[ISSUER]["keys_file"] = "own.keys"
    site.config["issuers"][ISSUER]["publishers"] = ["idp"]
    site.write()
    new, evil = "https://new.example.net/out", f"{ISSUER}:8443/out"
    entries = [
        {"client_id": name, "backchannel_logout_uri": None, "frontchannel_logout_uri": uri}
        for name, uri in (("new", new), ("evil", evil))
    ]
    async with worker(site) as running, aiohttp.ClientSession() as browser:
        await running.until_ready()
        url = await running.at("web")

        async def shown(sealed: str) -> tuple[int, str]:
            async with browser.get(f"{url}/front-channel/{sealed}") as answer:
                return answer.status, await answer.text()

        status, told = await running.ask("POST", "/v1/sign-outs", body={**EVENT, "clients": entries})
        assert (status, told["front_channel"]["clients"]) == (202, 1)
        assert (
            "leaves out 1 client whose address does not count (evil): it is on id.example.com, the issuer's"
            in told["note"]
        )
        status, text = await shown(told["front_channel"]["url"].rpartition("/")[2])
        assert (status, f'src="{new}?iss=' in text, "evil" in text) == (200, True, False)
        assert await running.metric("front_channel_left_out_total", reason="own_host") == 1

        assert f'src="{new}?iss=' in (await shown(sealed_by(own, ISSUER, new=new)))[1]
        assert (await shown(sealed_by(own, OTHER, new=new)))[0] == 400
        status, text = await shown(sealed_by(shared, ISSUER, new=new, bad="javascript:alert(1)"))
        assert (status, new in text, "alert" in text) == (200, False, False)
        assert await running.metric("front_channel_left_out_total", reason="shared_key") == 2
        assert new not in (await shown(sealed_by(shared, OTHER, new=new)))[1]
        assert await running.metric("front_channel_left_out_total", reason="shared_key") == 3
        status, told = await running.ask("POST", "/v1/sign-outs", body={**EVENT, "iss": OTHER, "clients": entries})
        assert (status, told["front_channel"]) == (202, None)
        assert "(new, evil): an event's address counts from the identity server alone" in told["note"]
        said = running.said("front_channel_left_out")
        assert [(line["iss"], line["reason"], line["clients"]) for line in said] == [
            (ISSUER, "own_host", 1), (ISSUER, "shared_key", 2), (OTHER, "shared_key", 1), (OTHER, "speaker", 2),
        ]  # fmt: skip
        assert "https://new" not in str(said)
        assert await running.stop() == 0
