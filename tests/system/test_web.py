"""The web face of a worker process: it listens where it is configured, and nowhere else."""

import asyncio
from pathlib import Path

import aiohttp
from cryptography.fernet import Fernet

from tests.proxies import ROOT, documented
from tests.system.command import notifier
from tests.system.site import Site
from tests.system.worker_process import worker


async def test_the_web_face_listens_only_where_it_is_configured(tmp_path: Path) -> None:
    """Its line says where. Health and metrics stay where they were."""
    site = Site(tmp_path, f"sqlite:{tmp_path}/q.db")
    async with worker(site) as running:
        await running.until_ready()
        assert [line for line in running.said("listening") if "web" in line] == []
        assert await running.stop() == 0
    (tmp_path / "web.keys").write_bytes(Fernet.generate_key())
    (tmp_path / "web.keys").chmod(0o600)
    pages = {"login": {"issuer": next(iter(site.config["issuers"])), "formula": "duende"}}
    site.config["web"] = {"listen": "127.0.0.1:0", "keys_file": "web.keys", "check_session": pages}
    site.write()
    checked = await asyncio.to_thread(notifier, "check", "-c", "notifier.yaml", cwd=tmp_path)
    assert "web listens on 127.0.0.1:0" in checked.stdout
    async with worker(site) as running, aiohttp.ClientSession() as session:
        url = str((await running.until_said("listening", lambda line: "web" in line))["web"])
        for path in ("/", "/metrics", "/livez", "/v1/events"):
            async with session.get(url + path) as answer:
                assert answer.status == 404
        async with session.get(f"{url}/check-session/login") as answer:
            assert (answer.status, "idsrv.session" in await answer.text()) == (200, True)
        await running.until_ready()
        assert await running.stop() == 0


def test_the_example_of_the_documents_is_right(tmp_path: Path) -> None:
    """With a key of its own for pages, as the documents make it; and it is what they show."""
    example = (ROOT / "docs/examples/web.yaml").read_text()
    shown = documented("yaml")
    assert [line for line in shown.splitlines() if line not in example.splitlines()] == []
    key = notifier("keys", "web", cwd=tmp_path).stdout
    clients = (
        '[{"client_id": "shop", "frontchannel_logout_uri": "https://shop.example.com/out"}, {"client_id": "none"}]'
    )
    for name, content in {"web.keys": key, "clients.yaml": clients, "web.yaml": example}.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    notifier("keys", "generate", "--out", "key.pem", "--at", "once", cwd=tmp_path)
    checked = notifier("check", "-c", "web.yaml", cwd=tmp_path)
    assert checked.stdout.startswith("no mistakes\nissuer https://login.example.com"), (checked.stdout, checked.stderr)
    assert "web listens on 127.0.0.1:8090" in checked.stdout
    assert "(1 told by browsers alone; 1 without backchannel_logout_uri, never told)" in checked.stdout
