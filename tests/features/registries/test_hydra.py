"""The clients of Ory Hydra. The pages were recorded from Hydra 26.2.0."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from notifier.model.errors import SourceFault
from tests.features.registries.list_server import cut, page, reader, serving

RECORDED = Path(__file__).parents[2] / "recorded" / "hydra-26.2.0"
HOOK = "https://shop.example.com/hook"


class _Hydra:
    """Answers the recorded pages by their tokens. A token that is none of them closes the connection."""

    def __init__(self) -> None:
        pages = [json.loads((RECORDED / f"clients-page-{nth}.json").read_text()) for nth in (1, 2, 3)]
        tokens = [None, *(self._next(each["link"]) for each in pages[:-1])]
        self.pages = dict(zip(tokens, pages, strict=True))
        self.asked: list[str | None] = []

    @staticmethod
    def _next(link: str) -> str | None:
        return link.rpartition("page_token=")[2].partition(">")[0].replace("%3D", "=")

    async def page(self, request: web.Request) -> web.StreamResponse:
        token = request.query.get("page_token")
        self.asked.append(token)
        assert (request.path, request.query["page_size"]) == ("/admin/clients", "500")
        found = self.pages.get(token)
        return cut(request) if found is None else page(found["body"], Link=found["link"])


async def test_all_pages_are_read() -> None:
    """Each of the six clients is there once, with what concerns its logout alone."""
    async with serving((hydra := _Hydra()).page) as url:
        answer = await (hydra_reader := reader("hydra", admin_url=url)).read(None)
        assert await hydra_reader.read(answer) is answer
    assert len(hydra.asked) == 6
    rows = {row["client_id"]: row for row in answer.rows}
    assert list(rows) == ["a", "b", "c", "d", "e", "nolog"]
    assert rows["a"] == {
        "client_id": "a",
        "backchannel_logout_uri": "http://127.0.0.1:14500/bc/a",
        "backchannel_logout_session_required": True,
        "redirect_uris": ["http://127.0.0.1:14500/cb/a"],
        "subject_type": "public",
        "notifier": {"timeout": "3s"},
    }
    assert rows["d"]["subject_type"] == "pairwise"
    assert rows["c"]["frontchannel_logout_uri"] == "http://127.0.0.1:14500/fc/c?x=1"
    assert "backchannel_logout_uri" not in rows["nolog"]
    assert answer.faults == ()


async def test_an_unknown_page_token_restarts_the_reading_once() -> None:
    """Hydra closes the connection then. The second time it is a fault."""
    hydra = _Hydra()
    lost = list(hydra.pages)[2]
    times = [1]

    async def page_or_none(request: web.Request) -> web.StreamResponse:
        if request.query.get("page_token") == lost and times[0]:
            times[0] -= 1
            return cut(request)
        return await hydra.page(request)

    async with serving(page_or_none) as url:
        assert len((await reader("hydra", admin_url=url).read(None)).rows) == 6
        times[0] = 99  # aiohttp, too, asks again over a connection that was used before
        with pytest.raises(SourceFault, match="closed before the answer"):
            await reader("hydra", admin_url=url).read(None)


async def test_pages_that_never_end_are_a_fault() -> None:
    """A proxy that caches may answer the same page again and again."""

    async def same(request: web.Request) -> web.StreamResponse:
        return page([{"client_id": "a"}], Link='</admin/clients?page_token=x>; rel="next"')

    async with serving(same) as url:
        with pytest.raises(SourceFault, match="never ends"):
            await reader("hydra", admin_url=url).read(None)


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ({"metadata": {"notifier": {"backchannel_logout_uri": HOOK, "timeout": "3s"}}}, {"timeout": "3s"}),
        ({"metadata": {"notifier": {"backchannel_logout_uri": HOOK}}, "backchannel_logout_uri": "http://old/"}, {}),
        ({"metadata": {"notifier": {"backchannel_logout_uri": ""}}, "backchannel_logout_uri": HOOK}, {}),
        ({"metadata": "free text", "backchannel_logout_uri": HOOK}, None),
        ({"metadata": None, "backchannel_logout_uri": HOOK}, None),
        ({"metadata": {"notifier": None}, "backchannel_logout_uri": HOOK}, None),
    ],
)
async def test_metadata_holds_our_settings_and_perhaps_the_address(client: dict[str, Any], expected: Any) -> None:
    """`metadata.notifier.backchannel_logout_uri` comes first: Hydra, without an address, is then silent."""

    async def one(_: web.Request) -> web.StreamResponse:
        return page([{"client_id": "a", **client}])

    async with serving(one) as url:
        answer = await reader("hydra", admin_url=f"{url}/").read(None)
    assert answer.faults == ()
    row = dict(answer.rows[0])
    assert row.pop("notifier", None) == expected
    assert row == {"client_id": "a", "backchannel_logout_uri": HOOK}
