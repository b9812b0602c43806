"""Keycloak as a registry source, and as an upstream provider: a real one.

Left out where it cannot be had, unless NOTIFIER_TEST_KEYCLOAK is `required`.
"""

import asyncio
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from joserfc.jwk import import_key

from notifier.configuration.clients.client_rows import ClientsReader, SourceAnswer
from notifier.features.browsers.web_settings import SessionFormula
from notifier.features.registries.readers import build_reader
from notifier.model.client import Algorithm
from notifier.model.errors import SourceFault
from notifier.tokens.key_files import generate_key
from tests.browsers.check_session_harness import cookie_of
from tests.features.registries.keycloak_realm import (
    MANY,
    REALM,
    SECRET,
    published_key,
    realm,
    shop_realm,
    shop_user,
    transmitter,
)
from tests.features.registries.keycloak_upstream import change_key, company_site
from tests.settings.whole_settings import SOURCE_SETTINGS
from tests.support.keycloak_browser import KeycloakBrowser
from tests.support.keycloak_server import Keycloak
from tests.support.keycloak_shared import shared_keycloak
from tests.system.clients import Clients, verify_all
from tests.system.site import Site
from tests.system.worker_process import WorkerProcess, worker

pytestmark = [
    pytest.mark.full,  # its start takes a minute
    pytest.mark.timeout(900),  # at the first time on a machine Keycloak is got and built, beside other tests
]


@pytest.fixture(scope="module")
def keycloak(pytestconfig: pytest.Config) -> Keycloak:
    """The one of this run, which holds the realm."""
    found = shared_keycloak(pytestconfig).keycloak
    found.admin("POST", "", realm())
    return found


def reader(url: str, client_id: str = "reader", **more: Any) -> ClientsReader:
    settings = {"url": url, "realm": REALM, "client_id": client_id, "client_secret": SECRET, **more}
    return build_reader(SOURCE_SETTINGS.model_validate({"keycloak": settings}))


def by_name(answer: SourceAnswer) -> dict[str, Mapping[str, object]]:
    return {str(row["client_id"]): row for row in answer.rows}


async def test_clients_are_read_as_keycloak_would_notify_them(keycloak: Keycloak) -> None:
    """Addresses as it resolves them; algorithms, pairwise subjects, settings; what cannot be used by its name."""
    ours = reader(keycloak.url, default_algorithm="PS256")
    answer = await ours.read(None)
    rows = by_name(answer)
    common = {"issuer": f"{keycloak.url}/realms/{REALM}", "id_token_signed_response_alg": "PS256"}

    def row(name: str, uri: str, **more: object) -> dict[str, object]:
        row = {"backchannel_logout_uri": uri, "backchannel_logout_session_required": False}
        return {"client_id": name, **common, **row, **more}

    expected = {
        "abs": row(
            "abs",
            "https://abs.example.com/logout",
            backchannel_logout_session_required=True,
            id_token_signed_response_alg="ES256",
        ),
        "rel": row("rel", "https://rel.example.com/app/logout"),
        "own": row("own", f"{keycloak.url}/own"),
        "rootless": row("rootless", f"{keycloak.url}/rootless"),
        "both": row("both", "https://both.example.com/bc", frontchannel_logout_uri="https://both.example.com/fc"),
        "pairwise": row(
            "pairwise",
            "https://pw.example.com/bc",
            subject_type="pairwise",
            redirect_uris=["https://pw.example.com/*"],
        ),
        "slow": row("slow", "https://slow.example.com/bc", notifier={"timeout": "20s"}),
        "encrypted": row(
            "encrypted",
            "https://enc.example.com/bc",
            id_token_encrypted_response_alg="RSA-OAEP",
            id_token_encrypted_response_enc="A256GCM",
            jwks_uri="https://enc.example.com/jwks",
        ),
        "disabled": {"client_id": "disabled", "issuer": common["issuer"]},
        "saml": {"client_id": "saml", "issuer": common["issuer"]},
        "bearer": {"client_id": "bearer", **common},
        "account": {
            "client_id": "account",
            **common,
            "redirect_uris": [f"{keycloak.url}/realms/{REALM}/account/*"],
        },
    }
    assert {name: rows.get(name) for name in expected} == expected
    assert {fault.path: fault.text for fault in answer.faults}.keys() == {"fragment"}
    assert sum(name.startswith("z-") for name in rows) == MANY
    assert await ours.read(answer) is answer
    listed = keycloak.admin("GET", f"/{REALM}/clients")
    assert {client["clientId"] for client in listed} == {*rows, "fragment"}
    assert any("secret-of-" in str(client.get("secret")) for client in listed)
    assert not [secret for secret in ("secret-of-", SECRET) if secret in repr(answer)]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"client_id": "querier"}, "answered with no clients, which cannot be: give the role view-clients"),
        ({"client_id": "nobody"}, "answered 403: give the role view-clients"),
        ({"client_id": "seer"}, "answered 403: give the role view-clients"),
        ({"client_secret": "wrong-secret"}, r"no token \(401\): client_id reader or its secret is wrong"),
        ({"client_id": "stranger"}, r"no token \(401\): client_id stranger or its secret is wrong"),
        ({"client_id": "no-account"}, r"no token \(40[01]\): client_id no-account .* Service accounts roles"),
        ({"client_id": "public"}, r"no token \(40[01]\): client_id public .* Client authentication"),
        ({"client_id": "off"}, r"no token \(401\): client_id off or its secret is wrong; or that client is disabled"),
        ({"realm": "Demo"}, "there is no realm Demo at"),
        ({"path": "/auth"}, "there is no realm demo at .*/auth in old versions"),
    ],
)
async def test_missing_settings_of_keycloak_are_named(changed: dict[str, str], words: str, keycloak: Keycloak) -> None:
    """Without any secret."""
    more = {**changed}
    with pytest.raises(SourceFault, match=words) as caught:
        await reader(keycloak.url + more.pop("path", ""), **more).read(None)
    shown = "".join(traceback.format_exception(caught.value, chain=True))
    assert not [secret for secret in (SECRET, "secret-of-", "wrong-secret") if secret in shown]


PASSWORD = "passw0rd-of-alice"
HOOK = "Bearer hook-of-keycloak"
AUDIENCE = "https://notifier.example.com"
PAGE = Path(__file__).parents[3] / "docs/identity-servers/keycloak.md"


def shop_site(folder: Path, keycloak: Keycloak) -> tuple[Site, str]:
    """Write a configuration for the realm `shop`, with a key that Keycloak publishes. Return it and the key's `kid`."""
    pem = generate_key(Algorithm.RS256).decode()
    kid = import_key(pem, "RSA").thumbprint()
    realm_id = keycloak.admin("GET", "/shop")["id"]
    keycloak.admin("POST", "/shop/components", published_key(realm_id, pem, kid))
    issuer = f"{keycloak.url}/realms/shop"
    site = Site(folder, f"sqlite:{folder / 'queue.db'}")
    for name, content in (("shop.pem", pem), ("kc", SECRET), ("hook", HOOK)):
        (folder / name).write_text(content)
        (folder / name).chmod(0o600)
    reading = {"url": keycloak.url, "realm": "shop", "client_id": "reader", "client_secret_file": "kc"}
    jwks_uri = f"{issuer}/protocol/openid-connect/certs"
    way = {"issuers": {realm_id: issuer}, "http": {"header": "Authorization", "value_file": "hook"}}
    site.config |= {
        "issuers": {issuer: {"keys": [{"file": "shop.pem"}], "jwks_uri": jwks_uri}},
        "registry": {"sources": [{"name": "kc", "keycloak": reading}], "cache": "cache"},
        "sources": {
            "signals": {
                "preset": "keycloak_ssf",
                "http": {"set": {"issuer": issuer, "audience": AUDIENCE, "jwks_uri": jwks_uri}},
            },
            **{name: {**given, **way} for name, given in page_sources().items()},
        },
    }
    site.write()
    return site, kid


def page_sources() -> dict[str, Any]:
    """The sources that the page for operators shows, without the exchanges that they are bound to."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    plugin, _signals, admin = (yaml.safe_load(block)["sources"] for block in blocks)
    found = plugin | admin
    return {name: {key: value for key, value in given.items() if key != "bind"} for name, given in found.items()}


async def post(running: WorkerProcess, source: str, event: Mapping[str, Any]) -> None:
    """Post an event in the form of the plug-in."""
    sent = {"@class": "com.github.aznamier.keycloak.event.provider.EventClientNotificationMqMsg", **event, "id": None}
    api = str((await running.until_logged("listening", lambda line: "api" in line))["api"])
    async with (
        aiohttp.ClientSession(headers={"Authorization": HOOK}) as session,
        session.post(f"{api}/v1/events/{source}", json=sent) as answer,
    ):
        assert answer.status == 202


async def test_a_sign_out_reaches_the_clients_of_the_realm(keycloak: Keycloak, tmp_path: Path) -> None:
    """From a sign-in by Keycloak's pages to tokens that its JWK Set verifies. No secret is in what a worker writes."""
    async with Clients() as clients, KeycloakBrowser(keycloak.url, "shop") as browser:
        keycloak.admin("POST", "", shop_realm(clients.url("silent"), clients.url("loud")))
        keycloak.admin("POST", "/shop/users", shop_user("alice", PASSWORD))
        site, kid = shop_site(tmp_path, keycloak)
        async with worker(site) as running:
            signed_in = [
                await browser.sign_in(name, "http://127.0.0.1/callback", "alice", PASSWORD)
                for name in ("silent", "loud")
            ]
            row = str(browser.tokens["silent"]["session_state"])
            state = browser.cookie("KEYCLOAK_SESSION").strip('"')
            assert state in {cookie_of(SessionFormula.KEYCLOAK, row, hashed) for hashed in ("sha256", "sha384")}
            await browser.sign_out(signed_in[0]["raw"], "http://127.0.0.1/bye")
            [event] = keycloak.admin("GET", "/shop/events?type=LOGOUT")
            await post(running, "keycloak", event)
            await clients.until(lambda: len(clients.hits) == 3)
            ended = [*clients.hits]
            clients.hits.clear()
            await administer(keycloak, browser, running, clients)
            if keycloak.signals:
                await signal(keycloak, browser, running, clients)
            log = running.log
    assert sorted((hit.path, hit.header["kid"] == kid) for hit in ended) == [
        ("/loud", False),
        ("/loud", True),
        ("/silent", True),
    ]
    ours = [hit for hit in ended if hit.header["kid"] == kid]
    jwks = await _jwks(keycloak)
    verify_all(ours, lambda _: jwks)
    assert {(hit.claims["sub"], hit.claims["sid"]) for hit in ours} == {(signed_in[0]["sub"], signed_in[0]["sid"])}
    written = log + await asyncio.to_thread(_cached, tmp_path)
    assert '"silent"' in written
    assert not [secret for secret in (SECRET, "secret-of-", HOOK, PASSWORD) if secret in written]


async def administer(keycloak: Keycloak, browser: KeycloakBrowser, running: WorkerProcess, clients: Clients) -> None:
    """End a session as an administrator, then delete its user. Events of users report neither."""
    keycloak.admin("POST", "/shop/users", shop_user("bob", PASSWORD))
    signed_in = await browser.sign_in("silent", "http://127.0.0.1/callback", "bob", PASSWORD)
    keycloak.admin("DELETE", "/shop/admin-events")
    keycloak.admin("DELETE", f"/shop/sessions/{signed_in['sid']}")
    keycloak.admin("DELETE", f"/shop/users/{signed_in['sub']}")
    for event in reversed(keycloak.admin("GET", "/shop/admin-events")):
        await post(running, "keycloak_admin", event)
    await clients.until(lambda: len(clients.hits) == 3)
    row = sorted((hit.path, hit.claims.get("sid", ""), hit.claims.get("sub", "")) for hit in clients.hits)
    sid, sub = signed_in["sid"], signed_in["sub"]
    assert row == [("/loud", "", sub), ("/loud", sid, ""), ("/silent", sid, "")]
    dead = await running.until_logged("dead_letter")
    assert (dead["client_id"], dead["reason"]) == ("silent", "no_sid")


async def signal(keycloak: Keycloak, browser: KeycloakBrowser, running: WorkerProcess, clients: Clients) -> None:
    """Keycloak itself notifies notifier of a sign-out, by a Security Event Token."""
    api = str((await running.until_logged("listening", lambda line: "api" in line))["api"])
    endpoint = f"{api}/v1/events/signals"
    keycloak.admin("POST", "/shop/clients", transmitter(endpoint, AUDIENCE))
    keycloak.push_signals("shop", "events", SECRET, endpoint)
    signed_in = await browser.sign_in("silent", "http://127.0.0.1/callback", "alice", PASSWORD)
    clients.hits.clear()
    await browser.sign_out(signed_in["raw"], "http://127.0.0.1/bye")
    await clients.until_notified("silent", [signed_in["sid"]])


def _cached(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("cache/*"))


async def _jwks(keycloak: Keycloak) -> Any:
    url = f"{keycloak.url}/realms/shop/protocol/openid-connect/certs"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.json()


async def test_its_own_logout_tokens_end_the_sessions_here(keycloak: Keycloak, tmp_path: Path) -> None:
    """Of a user and of an administrator, after a restart of ours, by keys just changed twice, and without `sid`."""
    async with (
        Clients() as clients,
        company_site(tmp_path, keycloak, clients, PASSWORD) as (site, asked),
        KeycloakBrowser(keycloak.url, "company") as browser,
    ):

        async def sign_in(client_id: str = "login") -> dict[str, Any]:
            return await browser.sign_in(client_id, "http://127.0.0.1/callback", "alice", PASSWORD)

        async def end(claims: Mapping[str, Any]) -> None:
            await asyncio.to_thread(keycloak.admin, "DELETE", f"/company/sessions/{claims['sid']}")
            await clients.until_notified("shop", [f"here-{claims['sid']}"])

        async with worker(site) as running:
            signed_in = await sign_in()
            await browser.sign_out(signed_in["raw"], "http://127.0.0.1/bye")
            await clients.until_notified("shop", [f"here-{signed_in['sid']}"])
            await end(await sign_in())
            later = await sign_in()
            assert await running.stop() == 0
        async with worker(site) as running:
            await end(later)
            for priority in (1000, 2000):
                claims = await sign_in()
                await asyncio.to_thread(change_key, keycloak, priority)
                await end(claims)
            everywhere = await sign_in("by-user")
            await asyncio.to_thread(keycloak.admin, "POST", f"/company/users/{everywhere['sub']}/logout")
            await clients.until_notified("shop", ["s1", "s2"])
            assert await running.metric("upstream_requests_total", upstream="company", result="accepted") == 4
            assert running.logged("upstream_refused") == []
            log = running.log
        verify_all(clients.hits, site.jwks)
        assert {hit.claims["sub"] for hit in clients.hits} == {f"up|{signed_in['sub']}"}
        assert [(question["sub"] is None, question["sid"] is None) for question in asked] == [
            *[(False, False)] * 5, (False, True),
        ]  # fmt: skip
        assert not [secret for secret in (signed_in["sub"], later["sid"], everywhere["sid"]) if secret in log]
