"""The issuer's public side: discovery, key set, and introspection of command tokens. It may be unavailable."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
from aiohttp import web

from tests.features.channels.receivers.verification import RefusedTokenError, verify_signature
from tests.system.loopback import LoopbackServer

KeySet = Mapping[str, Sequence[Mapping[str, Any]]]


class KeysUnreadableError(Exception):
    """The issuer's key set cannot be read now."""


class FakeIssuer(LoopbackServer):
    """Serves what `jwks` returns. While `unavailable`, each answer is 503; `readings` counts the reads of the key set.

    `iss` None: the issuer is the server's own URL.
    """

    def __init__(
        self, jwks: Callable[[], KeySet], iss: str | None = None, algorithms: Sequence[str] = ("RS256",), port: int = 0
    ) -> None:
        super().__init__(self._handle, port)
        self.algorithms = algorithms
        self.unavailable = False
        self.readings = 0
        self._iss = iss
        self._jwks = jwks

    @property
    def iss(self) -> str:
        """Return the issuer's name."""
        return self._iss or self.base

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.unavailable:
            return web.Response(status=503)
        match request.method, request.path:
            case "GET", "/jwks":
                self.readings += 1
                self.changed.set()
                return web.json_response(self._jwks())
            case "GET", "/.well-known/openid-configuration":
                return web.json_response(self._metadata())
            case "POST", "/oauth/introspect":
                return self._introspect(dict(parse_qsl((await request.read()).decode())))
        return web.Response(status=404)

    def _metadata(self) -> Mapping[str, object]:
        return {
            "issuer": self.iss,
            "jwks_uri": f"{self.base}/jwks",
            "introspection_endpoint": f"{self.base}/oauth/introspect",
            "id_token_signing_alg_values_supported": list(self.algorithms),
        }

    def _introspect(self, form: Mapping[str, str]) -> web.Response:
        try:
            header, claims = verify_signature(form.get("token", ""), self._jwks(), self.algorithms)
        except RefusedTokenError as refusal:
            return web.json_response({"active": False, "error": str(refusal)}, status=400)
        if header.get("typ") != "command+jwt" or claims.get("client_id") != form.get("client_id"):
            return web.json_response({"active": False}, status=400)
        return web.json_response({"active": True, **claims})


class PublishedKeys:
    """Reads the issuer's keys and algorithms as a receiver does: at each token, or once if `cached`."""

    def __init__(self, issuer: FakeIssuer, *, cached: bool = False) -> None:
        self._issuer = issuer
        self._cached = cached
        self._metadata: dict[str, Any] | None = None
        self._keys: KeySet | None = None

    async def read(self) -> tuple[KeySet, Sequence[str]]:
        """Return the key set and the algorithms of the issuer's metadata. Raises KeysUnreadableError."""
        if self._keys is None or self._metadata is None or not self._cached:
            metadata = await _fetch(f"{self._issuer.base}/.well-known/openid-configuration")
            self._keys, self._metadata = await _fetch(metadata["jwks_uri"]), metadata
        return self._keys, self._metadata["id_token_signing_alg_values_supported"]


async def _fetch(url: str) -> dict[str, Any]:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            if answer.status == 200:
                return dict(json.loads(await answer.read()))
    except aiohttp.ClientError as error:
        raise KeysUnreadableError(str(error)) from None
    raise KeysUnreadableError(f"{url} answered {answer.status}")
