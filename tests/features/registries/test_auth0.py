"""An Auth0 tenant's applications. The documents are put together from its API's documentation."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from notifier.features.registries.auth0 import Auth0Tenant
from notifier.features.registries.list_settings import Auth0Settings
from notifier.features.registries.page_requests import WebReader
from notifier.model.errors import SourceFault
from tests.features.registries.list_server import page, serving, source

HOOK = "https://shop.example.com/hook"
TOKEN = {"access_token": "t1", "expires_in": 86400, "scope": "read:clients", "token_type": "Bearer"}


class _Auth0:
    """A tenant with these applications."""

    def __init__(self, clients: list[Any]) -> None:
        self.clients = clients
        self.tokens: list[dict[str, str]] = []
        self.good = "t1"
        self.token: dict[str, Any] = dict(TOKEN)
        self.pages: list[str] = []
        self.drop_at = -1

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/oauth/token":
            self.tokens.append({name: str(value) for name, value in (await request.post()).items()})
            return page(self.token)
        assert request.path == "/api/v2/clients"
        assert request.query["fields"] == "client_id,name,callbacks,oidc_logout,jwt_configuration"
        if request.headers["Authorization"] != f"Bearer {self.good}":
            return web.Response(status=401)
        nth, size = int(request.query["page"]), int(request.query["per_page"])
        self.pages.append(request.query["page"])
        if len(self.pages) == self.drop_at:
            del self.clients[0]
        found = self.clients[nth * size : (nth + 1) * size]
        return page({"start": nth * size, "limit": size, "total": len(self.clients), "clients": found})


def _reader(url: str, folder: Path, now: list[float] | None = None) -> WebReader:
    (folder / "secret").write_text("hunter2\n")
    settings = source("auth0", folder, url=url, client_id="notifier", client_secret_file="secret")
    tenant = Auth0Tenant(settings.of_kind(Auth0Settings), lambda: (now or [0.0])[0])
    return WebReader(tenant.collect, None, settings.timeout)


async def test_applications_are_read_with_one_token_until_it_runs_out(tmp_path: Path) -> None:
    """A tenant may ask for few tokens a month."""
    auth0, now = _Auth0([{"client_id": f"c{nth}"} for nth in range(250)]), [1000.0]
    async with serving(auth0.answer) as url:
        reader = _reader(f"{url}/", tmp_path, now)
        first = await reader.read(None)
        assert len(first.rows) == 250
        assert await reader.read(first) is first
        assert len(auth0.tokens) == 1
        assert auth0.tokens[0] == {
            "grant_type": "client_credentials",
            "client_id": "notifier",
            "client_secret": "hunter2",
            "audience": f"{url}/api/v2/",
        }
        now[0] += 86_400
        assert await reader.read(first) is first
        assert len(auth0.tokens) == 2
        auth0.good, auth0.token = "t2", {**TOKEN, "access_token": "t2"}  # the key was rotated
        assert await reader.read(first) is first
        assert len(auth0.tokens) == 3


@pytest.mark.parametrize("added", [False, True])
async def test_an_application_removed_meanwhile_hides_no_other(tmp_path: Path, added: bool) -> None:
    """The second page then begins one too late. The list is read again, until two readings are the same."""
    auth0 = _Auth0([{"client_id": f"c{nth}"} for nth in range(250)])
    async with serving(auth0.answer) as url:
        first = await (reader := _reader(url, tmp_path)).read(None)
        auth0.pages.clear()
        auth0.drop_at = 2
        if added:
            auth0.clients.append({"client_id": "new"})
        answer = await reader.read(first)
    expected = {f"c{nth}" for nth in range(1, 250)} | ({"new"} if added else set())
    assert {row["client_id"] for row in answer.rows} == expected


@pytest.mark.parametrize(
    ("client", "row"),
    [
        ({}, {}),
        ({"oidc_logout": None, "jwt_configuration": {"alg": "HS256"}}, {}),
        ({"oidc_logout": {"backchannel_logout_urls": []}}, {}),
        (
            {"name": "Shop", "callbacks": ["https://shop.example.com/cb", "https://*.example.com/cb"]},
            {"client_name": "Shop", "redirect_uris": ["https://shop.example.com/cb"]},
        ),
        ({"oidc_logout": {"backchannel_logout_urls": [HOOK]}}, {"backchannel_logout_uri": HOOK}),
        (
            {"oidc_logout": {"backchannel_logout_urls": [HOOK]}, "jwt_configuration": {"alg": "PS256"}},
            {"backchannel_logout_uri": HOOK, "id_token_signed_response_alg": "PS256"},
        ),
        ({"oidc_logout": {"backchannel_logout_urls": [HOOK, HOOK]}}, None),
        ({"oidc_logout": {"backchannel_logout_urls": ["/hook"]}}, None),
    ],
)
async def test_an_applications_settings_become_metadata(client: Any, row: Any, tmp_path: Path) -> None:
    """One address is what Auth0 takes. Several are a fault: notifier would leave one out."""
    async with serving(_Auth0([{"client_id": "shop", **client}]).answer) as url:
        answer = await _reader(url, tmp_path).read(None)
    assert list(answer.rows) == ([] if row is None else [{"client_id": "shop", **row}])
    assert [fault.path for fault in answer.faults] == (["shop"] if row is None else [])


@pytest.mark.parametrize(
    ("token", "phrase"),
    [
        ({"error": "hunter2"}, "without an access token"),
        ({**TOKEN, "access_token": "a\nb"}, "without an access token"),
    ],
)
async def test_an_answer_without_a_token_is_a_fault(token: Any, phrase: str, tmp_path: Path) -> None:
    """Its text is not shown."""
    auth0 = _Auth0([])
    auth0.token = token
    async with serving(auth0.answer) as url:
        with pytest.raises(SourceFault, match=phrase):
            await _reader(url, tmp_path).read(None)


@pytest.mark.parametrize(
    ("status", "phrase"), [(401, "client_secret_file is wrong"), (403, "with the scope read:clients")]
)
async def test_a_refused_token_names_the_setting(status: int, phrase: str, tmp_path: Path) -> None:
    """Auth0 answers 403 where the application is not authorized for the Management API."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error_description": "hunter2"}, status=status)

    async with serving(refuse) as url:
        with pytest.raises(SourceFault, match=phrase) as caught:
            await _reader(url, tmp_path).read(None)
    assert "hunter2" not in str(caught.value)


async def test_no_application_and_a_missing_secret_are_faults(tmp_path: Path) -> None:
    """notifier's own application is always there."""
    async with serving(_Auth0([]).answer) as url:
        with pytest.raises(SourceFault, match="has no application, which cannot be"):
            await _reader(url, tmp_path).read(None)
        reader = _reader(url, tmp_path)
        (tmp_path / "secret").write_text("\n")
        with pytest.raises(SourceFault, match=r"client_secret_file .*secret is empty; write the secret into it"):
            await reader.read(None)
