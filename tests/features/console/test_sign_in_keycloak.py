"""Operators sign in at a real Keycloak, set up as in docs/console-sign-in.md: code and PKCE, as the page does it."""

import base64
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import pytest
from aiohttp import web

from tests.features.console.staff_realm import CLIENT, LIFE, PASSWORD, REALM, staff_oidc, staff_realm
from tests.support.keycloak_browser import KeycloakBrowser
from tests.support.keycloak_server import Keycloak
from tests.support.keycloak_shared import shared_keycloak
from tests.system.loopback import LoopbackServer
from tests.system.site import API_TOKEN, Site
from tests.system.worker_process import WorkerProcess, worker

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]  # Keycloak's start takes a minute, the first one more

REDIRECT = "http://127.0.0.1:8080/console/"


class Operator:
    """Somebody with a browser."""

    def __init__(self, api: str, browser: KeycloakBrowser, http: aiohttp.ClientSession) -> None:
        self.api, self._browser, self._http = api, browser, http

    async def sign_in(self, user: str = "", **more: str) -> tuple[int, dict[str, Any]]:
        """Sign in as the page does; without `user`, by the provider's session. Return status and document."""
        verifier, nonce = "v" * 43 + user, f"nonce-{user}"
        async with self._http.get(f"{self.api}/v1/sign-in") as answer:
            oidc = (await answer.json())["oidc"]
        assert oidc["problem"] is None, oidc
        assert oidc["authorization_endpoint"].endswith("/protocol/openid-connect/auth")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code", "client_id": oidc["client_id"], "redirect_uri": REDIRECT, "scope": oidc["scope"],
            "state": "s7", "nonce": nonce, "code_challenge": challenge, "code_challenge_method": "S256", **more,
        }  # fmt: skip
        came = await self._browser.led_back(query, user, PASSWORD)
        assert (came["state"], came["iss"]) == ("s7", oidc["issuer"])
        given = {"code": came["code"], "code_verifier": verifier, "redirect_uri": REDIRECT, "nonce": nonce}
        async with self._http.post(f"{self.api}/v1/sign-in/token", json=given) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def operator(running: WorkerProcess, keycloak: Keycloak) -> AsyncIterator[Operator]:
    """A new browser."""
    async with KeycloakBrowser(keycloak.url, REALM) as browser, aiohttp.ClientSession() as http:
        yield Operator(await running.at("api"), browser, http)


def configured(folder: Path, keycloak: Keycloak, **changes: object) -> Site:
    """Write a configuration with which the realm's users sign in."""
    site = Site(folder, f"sqlite:{folder}/q.db")
    site.config["api"]["console"] = {"oidc": staff_oidc(keycloak.url, **changes)}
    site.write()
    return site


@pytest.fixture(scope="module")
def keycloak(pytestconfig: pytest.Config) -> Keycloak:
    """The one of this run."""
    return shared_keycloak(pytestconfig).keycloak


@pytest.fixture
async def logout_tokens(keycloak: Keycloak) -> AsyncIterator[list[str]]:
    """Yield the logout tokens that the realm sends to the console's client."""
    came: list[str] = []

    async def take(request: web.BaseRequest) -> web.Response:
        came.extend(parse_qs(await request.text())["logout_token"])
        server.changed.set()
        return web.Response()

    async with LoopbackServer(take) as server:
        keycloak.admin("POST", "", staff_realm(f"{server.base}/logout", REDIRECT))
        yield came
    keycloak.admin("DELETE", f"/{REALM}")


async def test_operators_sign_in_with_their_roles(tmp_path: Path, keycloak: Keycloak, logout_tokens: list[str]) -> None:
    """An SRE acts, support reads, others get the reason of the refusal. Tokens of the file remain valid."""
    async with worker(configured(tmp_path, keycloak)) as running:
        async with operator(running, keycloak) as browser:
            status, given = await browser.sign_in("alice")
            assert status == 200, given
            assert given.keys() == {"access_token", "expires_at"}
            assert 0 < given["expires_at"] - time.time() <= LIFE
            sre = given["access_token"]
            status, me = await running.ask("GET", "/v1/whoami", sre)
            assert (status, sorted(me["scopes"]), me["issuers"]) == (200, ["read", "repair"], None)
            assert me["name"].startswith("alice (user ")
            assert (await running.ask("PUT", "/v1/log-level", sre, {"level": "info"}))[0] == 200
            assert (await running.ask("POST", "/v1/events", sre, {}))[0] == 403
            status, renewed = await browser.sign_in(prompt="none")
            assert (status, renewed["access_token"] != sre) == (200, True)
        async with operator(running, keycloak) as browser:
            status, given = await browser.sign_in("bob")
            assert status == 200, given
            support = given["access_token"]
            assert (await running.ask("GET", "/v1/status", support))[0] == 200
            assert (await running.ask("PUT", "/v1/log-level", support, {"level": "debug"}))[0] == 403
        async with operator(running, keycloak) as browser:
            status, problem = await browser.sign_in("carol")
            assert status == 403
            assert problem["title"].startswith("You are signed in, but nothing in realm_access.roles of your token")
        assert (await running.ask("POST", "/v1/events", API_TOKEN, {}))[0] == 400
        assert (await running.ask("GET", "/v1/status", "unknown"))[0] == 401
        assert not any(secret in running.log for secret in (sre, support, "raw-"))
        assert "alice (user " in running.log, "audited"


async def test_other_tokens_of_the_provider_are_refused(
    tmp_path: Path, keycloak: Keycloak, logout_tokens: list[str]
) -> None:
    """Neither an ID token nor a logout token, also where `typ: JWT` is taken; nor one of another realm."""
    tokens = await _signed_out_tokens(keycloak)
    [logout_token] = logout_tokens
    async with worker(configured(tmp_path, keycloak, accept_typ_jwt=True)) as running:
        for token in (tokens["id_token"], logout_token, tokens["refresh_token"]):
            assert (await running.ask("GET", "/v1/status", token))[0] == 401
        assert (await running.ask("GET", "/v1/status", tokens["access_token"]))[0] == 200, "until it ends"
        keycloak.admin("GET", f"/{REALM}")  # asks for a token of the administrator
        status, problem = await running.ask("GET", "/v1/status", keycloak._token)
        assert status == 401, problem
    other = tmp_path / "other"
    other.mkdir()
    async with worker(configured(other, keycloak, issuer=f"{keycloak.url}/realms/master")) as running:
        status, problem = await running.ask("GET", "/v1/status", tokens["access_token"])
        assert status == 401, problem


async def _signed_out_tokens(keycloak: Keycloak) -> Mapping[str, Any]:
    """Return the tokens of alice for the console, after she signed out."""
    verifier = "v" * 43
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    query = {
        "response_type": "code", "client_id": CLIENT, "redirect_uri": REDIRECT, "scope": "openid",
        "code_challenge": challenge, "code_challenge_method": "S256",
    }  # fmt: skip
    async with KeycloakBrowser(keycloak.url, REALM) as browser:
        code = (await browser.led_back(query, "alice", PASSWORD))["code"]
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "client_id": CLIENT,
            "code_verifier": verifier,
        }  # fmt: skip
        status, tokens = await browser.post("token", form)
        assert status == 200, tokens
        await browser.post("logout", {"client_id": CLIENT, "refresh_token": tokens["refresh_token"]})
    assert isinstance(tokens, dict)
    return tokens
