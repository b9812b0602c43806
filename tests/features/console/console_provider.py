"""An OpenID Provider on loopback at which operators sign in, and the configuration of who asks it."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.features import FEATURES
from notifier.features.console.console_settings import OidcSettings, console_of
from tests.system.loopback import LoopbackServer
from tests.tokens.key_folder import ISS, OTHER, pem
from tests.tokens.transmitter import key, public, signed

NOW = 1_750_000_000.0
CLIENT, AUDIENCE = "notifier-console", "notifier-api"
REDIRECT, CODE, VERIFIER, NONCE = "https://notifier.example.com/console/", "c0de", "verifier-" * 5, "n0nce"
MAP = {"sre": ["read", "repair"], "support": ["read"]}


def oidc(at: str, **changes: Any) -> dict[str, Any]:
    """Return the section `api.console.oidc`. Members that are None are omitted."""
    section = {
        "issuer": at, "client_id": CLIENT, "audience": AUDIENCE, "scopes_claim": "groups", "map": MAP, **changes,
    }  # fmt: skip
    return {name: value for name, value in section.items() if value is not None}


def written(folder: Path, section: Mapping[str, Any] | None, **api: Any) -> Path:
    """Write a configuration of two issuers, and return its path."""
    (folder / "key.pem").write_bytes(pem("ES256"))
    issuers = {iss: {"keys": [{"file": "key.pem"}]} for iss in (ISS, OTHER)}
    listener = {"console": {"oidc": section}, **api}
    path = folder / "notifier.yaml"
    path.write_text(json.dumps({"issuers": issuers, "api": listener, "egress": {"allow_http": True}}))
    return path


def live(path: Path) -> LiveConfiguration:
    """As a worker has it."""
    return LiveConfiguration(path, {}, load(path, {}, FEATURES))


def section(configuration: LiveConfiguration) -> OidcSettings:
    """Return the section `api.console.oidc` of a loaded configuration."""
    console = console_of(configuration.current.settings)
    assert console is not None
    assert console.oidc is not None
    return console.oidc


class ConsoleProvider(LoopbackServer):
    """Publishes a key, and exchanges one code.

    `metadata`, `access` and `identity` change its documents, `answer` the result of an exchange. It answers one while
    `going_on` is set. A browser is `signed_in` there, or not.
    """

    def __init__(self) -> None:
        super().__init__(self._handle)
        self.asked: list[str] = []
        self.metadata: dict[str, Any] = {}
        self.keys: Any = [public(key("P-256"))]
        self.access: dict[str, Any] = {}
        self.identity: dict[str, Any] = {}
        self.answer: object = None
        self.opaque = ""
        self.clock: Callable[[], float] = lambda: NOW
        self.signed_in = True
        self._started = {"code_challenge": challenge_of(VERIFIER), "redirect_uri": REDIRECT, "nonce": NONCE}
        self.going_on = asyncio.Event()
        self.going_on.set()

    def token(self, header: Mapping[str, Any] | None = None, of: Any = None, **claims: Any) -> str:
        """Return an access token of alice, who is an SRE, with changed `claims`. Claims that are None are omitted."""
        now = int(self.clock())
        whole = {
            "iss": self.base, "aud": AUDIENCE, "sub": "raw-alice", "client_id": CLIENT, "jti": "j1", "iat": now,
            "exp": now + 300, "groups": ["staff", "sre"], **claims,
        }  # fmt: skip
        payload = {name: value for name, value in whole.items() if value is not None}
        return signed(payload, of, **{"typ": "at+jwt", **(header or {})}).decode()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        self.changed.set()
        match request.path:
            case "/.well-known/openid-configuration":
                found = {
                    "issuer": self.base, "jwks_uri": f"{self.base}/keys", "token_endpoint": f"{self.base}/token",
                    "authorization_endpoint": f"{self.base}/authorize", **self.metadata,
                }  # fmt: skip
                return web.json_response(found)
            case "/keys":
                return web.json_response({"keys": self.keys})
            case "/authorize":
                return self._authorize(dict(parse_qsl(request.url.raw_query_string)))
            case "/token":
                await self.going_on.wait()
                return self._exchange(dict(parse_qsl(await request.text())))
        return web.Response(status=404)

    def _authorize(self, query: Mapping[str, str]) -> web.Response:
        """Redirect to the console if a user is signed in or `prompt` is none; otherwise return a sign-in page."""
        assert query["code_challenge_method"] == "S256"
        self._started = dict(query)
        back = {"state": query["state"], "iss": self.base}
        if not self.signed_in and query.get("prompt") != "none":
            return web.Response(text="Who are you?")
        back |= {"code": CODE} if self.signed_in else {"error": "login_required"}
        return web.Response(status=302, headers={"Location": f"{query['redirect_uri']}?{urlencode(back)}"})

    def _exchange(self, form: Mapping[str, str]) -> web.Response:
        started = self._started
        meant = {
            "grant_type": "authorization_code", "client_id": CLIENT, "code": CODE,
            "redirect_uri": started["redirect_uri"],
        }  # fmt: skip
        proven = challenge_of(form.get("code_verifier", "")) == started["code_challenge"]
        if not proven or any(form.get(name) != value for name, value in meant.items()):
            return web.json_response({"error": "invalid_grant", "error_description": "raw <b>words</b>"}, status=400)
        now = int(self.clock())
        identity = {
            "iss": self.base, "aud": CLIENT, "nonce": started["nonce"], "sub": "raw-alice", "iat": now,
            "exp": now + 300, **self.identity,
        }  # fmt: skip
        identity = {name: value for name, value in identity.items() if value is not None}
        tokens = {
            "access_token": self.opaque or self.token(jti=str(len(self.asked)), **self.access),
            "id_token": signed(identity, typ="JWT").decode(),
            "refresh_token": "raw-refresh", "token_type": "Bearer", "expires_in": 300,
        }  # fmt: skip
        return web.json_response(tokens if self.answer is None else self.answer)


def challenge_of(verifier: str) -> str:
    """Of PKCE (RFC 7636 §4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
