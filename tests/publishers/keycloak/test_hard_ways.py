"""Ways in which sessions end that need more of Keycloak than users: limits, passwords, brokers, remember me.

NOTIFIER_TEST_FAULTS=long pytest -s tests/publishers/keycloak/test_hard_ways.py
"""

import asyncio
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import pytest_asyncio

from tests.databases import DatabaseServer
from tests.keycloak_browser import KeycloakBrowser
from tests.publishers.keycloak.conftest import had, long_form_alone
from tests.publishers.keycloak.nodes import CLIENTS, MANY, Nodes, nodes
from tests.publishers.keycloak.shop_realm import CALLBACK, GOODBYE, PASSWORD, realm, user
from tests.publishers.keycloak.test_hard_mariadb import CLEANED

HOME = "home"
"""The realm that users of the other one come from."""
pytestmark = [
    pytest.mark.full, long_form_alone, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1200),
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory, postgres: DatabaseServer, amqp_url: str
) -> AsyncIterator[Nodes]:
    """One Keycloak."""
    async with had(nodes(tmp_path_factory.mktemp("ways"), postgres, amqp_url)) as made:
        yield made


async def _admin(running: Nodes, method: str, path: str, body: object = None) -> Any:
    return await asyncio.to_thread(running.node.server.admin, method, path, body)


async def _change(running: Nodes, **more: object) -> None:
    await _admin(running, "PUT", f"/{MANY}", {**await _admin(running, "GET", f"/{MANY}"), **more})


def _browser(running: Nodes) -> KeycloakBrowser:
    return KeycloakBrowser(running.node.server.url, MANY)


async def _hold(running: Nodes, ended: list[str], living: list[str], **more: float) -> None:
    verdict = await running.verdict([*ended, *living], **more)
    assert verdict.holds, verdict
    assert verdict.ended == len(ended)


async def test_a_limit_of_sessions(running: Nodes) -> None:
    """Who signs in once more than he may ends his oldest session."""
    await _admin(running, "POST", f"/{MANY}/authentication/flows/browser/copy", {"newName": "limited"})
    executions = f"/{MANY}/authentication/flows/limited%20forms/executions"
    await _admin(running, "POST", f"{executions}/execution", {"provider": "user-session-limits"})
    [limit] = [
        each for each in await _admin(running, "GET", executions) if each.get("providerId") == "user-session-limits"
    ]
    await _admin(running, "PUT", executions, {**limit, "requirement": "REQUIRED"})
    config = {"behavior": "Terminate oldest session", "userRealmLimit": "2", "userClientLimit": "0"}
    await _admin(
        running, "POST", f"/{MANY}/authentication/executions/{limit['id']}/config", {"alias": "two", "config": config}
    )
    await _change(running, browserFlow="limited")
    try:
        async with _browser(running) as one, _browser(running) as two, _browser(running) as three:
            sids = [await running.sign_in(one)]
            name = running.last_user
            for browser in (two, three):
                await asyncio.sleep(1.1)  # the oldest is told by seconds
                sids.append(await running.sign_in(browser, name))
            await _hold(running, sids[:1], sids[1:])
    finally:
        await _change(running, browserFlow="browser")


async def test_a_password_is_changed_and_other_devices_signed_out(running: Nodes) -> None:
    """All sessions of the user but the one at hand."""
    async with _browser(running) as one, _browser(running) as two:
        other = await running.sign_in(one)
        here = await running.sign_in(two, running.last_user)
        two.more_fields = {"password-new": "another-one", "password-confirm": "another-one", "logout-sessions": "on"}
        await two.sign_in("web", CALLBACK, running.last_user, PASSWORD, kc_action="UPDATE_PASSWORD")
        await _hold(running, [other], [here])


async def test_remembered_sessions(running: Nodes) -> None:
    """They run out by a time of their own: what would be long over for others lives."""
    await _change(
        running,
        rememberMe=True,
        ssoSessionIdleTimeoutRememberMe=3 * 400 * 86_400,
        ssoSessionMaxLifespanRememberMe=9 * 400 * 86_400,
    )
    async with _browser(running) as one, _browser(running) as two:
        one.more_fields = {"rememberMe": "on"}
        kept, signed_out = await running.sign_in(one), None
        two.more_fields = one.more_fields
        name = running.last_user
        token = await two.sign_in("web", CALLBACK, name, PASSWORD)
        await two.sign_in("app", CALLBACK, name, PASSWORD)
        signed_out = str(token["sid"])
        plain = await running.more(20)
        await asyncio.to_thread(running.crowd.make_old, [kept, *plain])
        await two.sign_out(token["raw"], GOODBYE)
        await running.tap.until(lambda seen: {each.sid for each in seen} >= {*plain, signed_out}, CLEANED)
        await _hold(running, [*plain, signed_out], [kept])
        for _ in range(3):
            await asyncio.to_thread(running.crowd.make_old, [kept])
        await running.tap.until(lambda seen: kept in {each.sid for each in seen}, CLEANED)
        await _hold(running, [kept], [])


class _Wanderer(KeycloakBrowser):
    """Goes from realm to realm, and keeps the cookies of each apart, by their paths."""

    def __init__(self, url: str, realm_name: str) -> None:
        super().__init__(url, realm_name)
        self._jar: dict[str, dict[str, str]] = {}
        self.pages = 12

    async def _go(self, method: str, url: str, **more: Any) -> tuple[str, str]:
        path = urlsplit(url).path
        cookies = {name: value for at, kept in self._jar.items() if path.startswith(at) for name, value in kept.items()}
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        async with self._session.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
            for line in answer.headers.getall("Set-Cookie", []):
                for name, morsel in SimpleCookie(line).items():
                    self._jar.setdefault(morsel["path"], {})[name] = morsel.value
            location = answer.headers.get("Location", "")
            return urljoin(url, location) if location else "", await answer.text()


async def test_a_session_of_a_user_from_another_realm(running: Nodes) -> None:
    """Who came by an identity provider is told of as others are: both sessions, here and there, are ended apart."""
    await _other_realm(running)
    async with _Wanderer(running.node.server.url, MANY) as browser:
        found = [
            await browser.sign_in(client_id, CALLBACK, "traveller", PASSWORD, kc_idp_hint=HOME) for client_id in CLIENTS
        ]
        sid = str(found[-1]["sid"])
        await _admin(running, "DELETE", f"/{MANY}/sessions/{sid}")
        await _hold(running, [sid], [])
        [event] = running.tap.of(sid)
        assert event.event["sub"] == found[0]["sub"]
        assert event.event["iss"] == f"{running.node.server.url}/realms/{MANY}"


async def _other_realm(running: Nodes) -> None:
    """An identity provider for the first, with one user."""
    url = running.node.server.url
    made = realm(HOME, "http://127.0.0.1:9")
    broker = {
        "clientId": "broker-of-many", "secret": "s3cret-of-the-broker", "publicClient": False,
        "redirectUris": [f"{url}/realms/{MANY}/*"],
    }  # fmt: skip
    await _admin(running, "POST", "", {**made, "clients": [*made["clients"], broker]})
    await _admin(running, "POST", f"/{HOME}/users", user("traveller"))
    there = f"{url}/realms/{HOME}/protocol/openid-connect"
    config = {
        "clientId": "broker-of-many", "clientSecret": "s3cret-of-the-broker", "clientAuthMethod": "client_secret_post",
        "authorizationUrl": f"{there}/auth", "tokenUrl": f"{there}/token", "jwksUrl": f"{there}/certs",
        "issuer": f"{url}/realms/{HOME}", "useJwksUrl": "true", "validateSignature": "true", "syncMode": "IMPORT",
        "defaultScope": "openid profile email",
    }  # fmt: skip
    provider = {"alias": HOME, "providerId": "oidc", "enabled": True, "trustEmail": True, "config": config}
    await _admin(running, "POST", f"/{MANY}/identity-provider/instances", provider)
