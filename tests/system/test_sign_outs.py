"""`POST /v1/sign-outs` of a worker process: ignored addresses are logged and counted."""

from pathlib import Path

from tests.system.site import ISSUER, OTHER, Site
from tests.system.worker_process import worker

EVENT = {"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop", "billing"], "id": "e-1"}


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
