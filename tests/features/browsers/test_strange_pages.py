"""Pages that a configured key has sealed, but that are refused: the log has the reason for the operator."""

import time
from pathlib import Path

import aiohttp
import pytest
from cryptography.fernet import Fernet, MultiFernet
from structlog.testing import capture_logs

from notifier.features.browsers.front_channel_context import CONTEXT_LIFETIME_SECONDS, seal_context
from notifier.features.browsers.front_channel_counts import FrontChannelCounts
from notifier.features.browsers.web_pages import WebPages
from notifier.model.front_channel import FrontChannelContext
from notifier.network.listeners.web_app import web_app
from tests.configuration.test_live_configuration import live
from tests.publishing.serving import serving
from tests.tokens.key_folder import ISS, pem

OTHER = "https://other.example.com"
SHARED, OWN, STRANGER = (Fernet.generate_key() for _ in range(3))


@pytest.mark.parametrize(
    ("key", "iss", "hint"),
    [
        (OWN, OTHER, "the page's key belongs to another issuer"),
        (SHARED, f"{ISS}/", "web.issuers has no such issuer"),
        (OWN, f"{ISS}/", "web.issuers has no such issuer"),
        (STRANGER, ISS, None),
        (SHARED, ISS, None),
    ],
    ids=["another's key", "misspelt", "misspelt, with its own key", "a stranger", "in order"],
)
async def test_a_refused_page_sealed_by_a_known_key_is_logged(
    key: bytes, iss: str, hint: str | None, tmp_path: Path
) -> None:
    """Once a minute, since the bare 400 has no reason. Pages that anybody can make are not logged."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "clients.yaml").write_text("[]")
    (tmp_path / "web.keys").write_bytes(SHARED)
    (tmp_path / "own.keys").write_bytes(OWN)
    pages = {each: {"url": f"{each}/connect/notify"} for each in (ISS, OTHER)}
    running = live(
        tmp_path,
        issuers={each: {"keys": [{"file": "key.pem"}]} for each in (ISS, OTHER)},
        registry={"file": "clients.yaml"},
        web={
            "listen": "127.0.0.1:0",
            "keys_file": "web.keys",
            "issuers": {**pages, ISS: {**pages[ISS], "keys_file": "own.keys"}},
        },
    )
    web_pages = WebPages(running, FrontChannelCounts(lambda iss, client_id: (iss, client_id)))
    context = FrontChannelContext(iss=iss, sid="s", clients=(("shop", None),))
    sealed, expired = (
        seal_context(context, MultiFernet([Fernet(key)]), time.time() - age)
        for age in (0.0, CONTEXT_LIFETIME_SECONDS + 60.0)
    )
    with capture_logs() as logs:
        async with serving(web_app(web_pages.routes())) as listener, aiohttp.ClientSession() as session:
            for text in ("x", expired, sealed, sealed):
                async with session.get(f"{listener.url}/front-channel/{text}") as answer:
                    await answer.read()
    refusals = [line for line in logs if line["event"] == "front_channel_refused"]
    assert [(line["iss"], line["hint"].split(":")[0]) for line in refusals] == ([] if hint is None else [(iss, hint)])
