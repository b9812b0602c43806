"""The documents' picture of `notifier status`. `make pictures` keeps it; other runs only draw it."""

import io
import os
import re
from pathlib import Path

import pytest
from aiohttp import web
from rich.console import Console
from rich.text import Text

from notifier import RELEASE, __version__
from tests.system.clients import Answer, Clients, Hit
from tests.system.command import notifier_at
from tests.system.site import ISSUER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import worker

ANSWERS = {"/forum": 503, "/payroll": 400, "/shop": 200}
ROOT = Path(__file__).parents[2]
WIDTH = 132
MOST = 40_000  # bytes


def judge(hit: Hit) -> Answer:
    """By the client's name. One asks for a pause."""
    status = ANSWERS.get(hit.path)
    return web.Response(status=503, headers={"Retry-After": "600"}) if status is None else status


@pytest.mark.full
async def test_a_picture_of_status(tmp_path: Path) -> None:
    """Four clients: well, failing, refusing, and pausing."""
    async with Clients(judge) as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        del site.config["delivery"]["retry"]["max_delay"]  # it bounds the pause
        site.write()
        site.write_clients([client(name, clients.url(name)) for name in ("shop", "forum", "payroll", "museum")])
        async with worker(site) as running:
            for number in range(12):
                event = {"iss": ISSUER, "sub": f"u{number}", "sid": f"s{number}"}
                assert (await running.post({**event, "clients": ["shop", "forum", "payroll", "museum"]}))[0] == 202
            wide = {"COLUMNS": str(WIDTH), "FORCE_COLOR": "1"}
            done = await until(
                lambda: notifier_at(site, "status", settings=wide),
                lambda done: all(name in done.stdout for name in ("2 clients are unreachable", "payroll")),
            )
    svg = drawn(done.stdout)
    keep(svg, tmp_path)
    assert 5_000 < len(svg) < MOST
    assert "forum" in svg
    assert words_of(svg) == words_of((ROOT / "docs" / "status.svg").read_text()), "make pictures"


def words_of(svg: str) -> set[str]:
    """Its words and the version, without figures and what depends on them."""
    texts = " ".join(re.findall("<text[^>]*>([^<]*)<", svg)).replace("&#160;", " ")
    return set(re.findall(r"[a-z_]{4,}|\d+\.\d+\.\d\S*", texts)) - {"retry_after", "circuit", "server_error"}


def drawn(text: str) -> str:
    """What a terminal shows, as SVG, with no font from elsewhere. The worker is one of a release."""
    text = re.sub(r"\S+:\d+( +)" + re.escape(__version__), rf"notifier-0:1\g<1>{RELEASE}", text)
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(text))
    svg = console.export_svg(title="notifier status")
    return re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")


def keep(svg: str, folder: Path) -> None:
    """Write it: into the documents if they are made, else into the folder."""
    Path(os.environ.get("NOTIFIER_TEST_PICTURES") or folder, "status.svg").write_text(svg)
