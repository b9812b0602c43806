"""A real mod_auth_openidc that a worker calls at its front-channel URI: `iss` and `sid` end the session.

A fake identity server has its login, its token endpoint and its keys.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import RSAKey

from notifier.delivery.channels import FrontChannel
from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.ports import Tools
from notifier.delivery.verdict import Done
from notifier.messages.message_planner import make_deliveries
from notifier.model.client import Client, FrontChannelClient, FrontChannelWay, Route
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.registry import Registry
from notifier.model.session_ended import SessionEnded
from tests.network.http.http_requests import LOOPBACK, opened
from tests.receivers_of_the_world.mod_auth_openidc import PAGE, mod_auth_openidc
from tests.support.no_pauses import NoPauses
from tests.support.one_attempt import DecidedAttempt, attempt
from tests.support.rabbitmq_node import free_ports
from tests.system.loopback import LoopbackServer
from tests.system.waiting import until

KEY = RSAKey.generate_key(2048, {"kid": "k1"})
CLIENT = """OIDCProviderMetadataURL {iss}/.well-known/openid-configuration
OIDCClientID rp
OIDCClientSecret a-secret-for-loopback-only-0123456789
OIDCRedirectURI /protected/callback
{more}"""


class IdentityServer:
    """Sign in any user, in the session that is the login's name."""

    def __init__(self) -> None:
        self.server = LoopbackServer(self._handle)
        self._nonces: dict[str, str] = {}

    @property
    def iss(self) -> str:
        return self.server.base

    def code(self, asked: str, sid: str) -> str:
        """Sign the user in and return the code for a request that the client redirected."""
        self._nonces[sid] = parse_qs(urlsplit(asked).query)["nonce"][0]
        return sid

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/jwks":
            return web.json_response({"keys": [KEY.as_dict(private=False)]})
        if request.path == "/.well-known/openid-configuration":
            ends = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "jwks"}
            metadata = {name: f"{self.iss}/{path}" for name, path in ends.items()}
            kinds = {"response_types_supported": ["code"], "id_token_signing_alg_values_supported": ["RS256"]}
            return web.json_response({"issuer": self.iss, "subject_types_supported": ["public"], **metadata, **kinds})
        assert request.path == "/token"
        sid = parse_qs(await request.text())["code"][0]
        now = int(time.time())
        claims = {"iss": self.iss, "sub": "alice", "aud": "rp", "iat": now, "exp": now + 300, "sid": sid}
        token = jwt.encode({"alg": "RS256", "kid": "k1"}, claims | {"nonce": self._nonces[sid]}, KEY)
        return web.json_response({"access_token": "a", "token_type": "Bearer", "id_token": token})


@dataclass(slots=True)
class Browser:
    """A user's cookies at one client."""

    http: aiohttp.ClientSession
    client: str
    identity_server: IdentityServer

    async def sign_in(self, sid: str) -> None:
        """Follow the login's redirects."""
        async with self.http.get(f"{self.client}/protected/index.html", allow_redirects=False) as sent:
            asked = sent.headers["Location"]
        state = parse_qs(urlsplit(asked).query)["state"][0]
        code = {"code": self.identity_server.code(asked, sid), "state": state}
        async with self.http.get(f"{self.client}/protected/callback", params=code, allow_redirects=False) as done:
            assert done.status == 302, await done.text()

    async def signed_in(self) -> bool:
        """Return True if the client shows its page, False if it redirects to the login."""
        async with self.http.get(f"{self.client}/protected/index.html", allow_redirects=False) as answer:
            return PAGE in await answer.text()


@asynccontextmanager
async def signed_in(*sids: str, more: str = "") -> AsyncIterator[tuple[IdentityServer, str, list[Browser]]]:
    """Return the client, and a browser for each session. `more` are lines of the client's configuration."""
    identity_server = IdentityServer()
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    async with identity_server.server:
        with mod_auth_openidc(port, CLIENT.format(iss=identity_server.iss, more=more)):
            browsers = [
                Browser(aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)), url, identity_server)
                for _ in sids
            ]
            try:
                await until(lambda: _answers(browsers[0]), bool, 20.0)
                for browser, sid in zip(browsers, sids, strict=True):
                    await browser.sign_in(sid)
                    assert await browser.signed_in()
                yield identity_server, url, browsers
            finally:
                for browser in browsers:
                    await browser.http.close()


async def _answers(browser: Browser) -> bool:
    """Return True once the client has read the identity server's metadata, and redirects users there."""
    try:
        async with browser.http.get(f"{browser.client}/protected/index.html", allow_redirects=False) as answer:
            return answer.status == 302
    except aiohttp.ClientError:
        return False


async def tell(iss: str, url: str, sid: str) -> DecidedAttempt:
    """Make one attempt of a worker."""
    uri = f"{url}/protected/callback?logout=get"
    told = FrontChannelClient(frontchannel_logout_uri=uri, way=FrontChannelWay.SERVER)
    client = Client(
        iss=iss, client_id="rp", backchannel_logout_uri=None, front_channel=told, route=Route(egress=LOOPBACK)
    )
    event = SessionEnded(id="e-1", id_given=True, iss=iss, sub="alice", sid=sid, clients=("rp",))
    [delivery] = make_deliveries(event, Registry(clients={iss: {"rp": client}}), 0.0)
    assert isinstance(delivery, Delivery)
    async with opened() as transport:
        channel = FrontChannel(time.time)
        tools: dict[str, Any] = {
            "channels": dict.fromkeys(("back_channel", "front_channel"), channel),
            "transport": transport,
            "jitter": lambda: 0.5,
        }
        return await attempt(
            AdmittedDelivery(delivery=delivery, client=client, lane=Lane.EVENTS),
            Tools(clock=time.time, monotonic=time.monotonic, observe=lambda _: None, pauses=NoPauses(), **tools),
        )


async def test_call_from_server_to_server_ends_its_session() -> None:
    """Only the session of `iss` and `sid`."""
    async with signed_in("s1", "s2") as (identity_server, url, (first, second)):
        result = await tell(identity_server.iss, url, "s1")
        assert isinstance(result.verdict, Done), result
        assert not await first.signed_in()
        assert await second.signed_in()
        again = await tell(identity_server.iss, url, "s1")
        assert isinstance(again.verdict, Done), "already signed out is success"
