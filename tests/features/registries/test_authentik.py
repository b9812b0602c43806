"""authentik's OAuth2 providers. The documents are put together from its API's schema (2025.8 and 2025.10)."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from notifier.model.errors import SourceFault
from tests.features.registries.list_server import page, reader, serving

HOOK = "https://shop.example.com/hook"
GLOBAL = {"issuer_mode": "global", "signing_key": "9cb7", "encryption_key": None, "client_secret": "hunter2"}


def _answering(providers: list[Any]) -> Any:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == "Bearer token"
        nth, size = int(request.query["page"]), int(request.query["page_size"])
        found = providers[(nth - 1) * size : nth * size]
        more = nth * size < len(providers)
        pagination = {"next": nth + 1 if more else 0, "previous": nth - 1, "count": len(providers), "current": nth}
        return page({"pagination": pagination, "results": found})

    return answer


async def _read(providers: list[Any], folder: Path) -> Any:
    (folder / "token").write_text("token\n")
    async with serving(_answering(providers)) as url:
        return await reader("authentik", folder, url=url, token_file="token").read(None)


async def test_all_providers_are_read_without_their_secrets(tmp_path: Path) -> None:
    """They come by pages, with `client_secret` in clear."""
    answer = await _read([{"client_id": f"c{nth}", "logout_uri": HOOK, **GLOBAL} for nth in range(250)], tmp_path)
    assert len(answer.rows) == 250
    assert answer.rows[0] == {"client_id": "c0", "backchannel_logout_uri": HOOK}
    assert "hunter2" not in str(answer)


@pytest.mark.parametrize(
    ("provider", "row"),
    [
        ({"logout_uri": HOOK, "logout_method": "backchannel"}, {"backchannel_logout_uri": HOOK}),
        ({"backchannel_logout_uri": HOOK}, {"backchannel_logout_uri": HOOK}),
        ({"logout_uri": HOOK, "logout_method": "frontchannel"}, {"frontchannel_logout_uri": HOOK}),
        ({"logout_uri": "", "issuer_mode": "per_provider", "signing_key": None}, {}),
        (
            {
                "assigned_application_name": "Shop",
                "redirect_uris": [
                    {"matching_mode": "strict", "url": "https://a.example.com/cb"},
                    {"matching_mode": "regex", "url": "https://.*"},
                ],
            },
            {"client_name": "Shop", "redirect_uris": ["https://a.example.com/cb"]},
        ),
        ({"logout_uri": HOOK, "issuer_mode": "per_provider"}, "has an issuer of its own"),
        ({"logout_uri": HOOK, "signing_key": None}, "has no signing_key, so its tokens are HS256"),
        ({"logout_uri": HOOK, "encryption_key": "9cb7"}, "has an encryption_key"),
        ({"logout_uri": "/hook"}, "backchannel_logout_uri must be an absolute URI"),
    ],
)
async def test_a_providers_settings_become_metadata(provider: Any, row: Any, tmp_path: Path) -> None:
    """A provider with a separate issuer, or without a key, is a fault that names the setting."""
    answer = await _read([{"client_id": "shop", **GLOBAL, **provider}], tmp_path)
    if isinstance(row, str):
        assert answer.rows == []
        assert str(answer.faults[0]).startswith(f"shop: {row}")
    else:
        assert answer.rows == [{"client_id": "shop", **row}]


async def test_an_empty_list_of_providers_is_a_fault(tmp_path: Path) -> None:
    """authentik shows none to a user without the permission."""
    with pytest.raises(SourceFault, match="Can view OAuth2/OpenID Provider"):
        await _read([], tmp_path)
