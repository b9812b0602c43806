"""A receiver of OpenID Provider Commands 1.0, draft 02, which answers by the draft and takes nothing beyond it."""

import json
import time
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from tests.features.channels.receivers.fake_issuer import KeysUnreadableError, PublishedKeys
from tests.features.channels.receivers.fake_receiver import FakeReceiver, Reply, ReplyError
from tests.features.channels.receivers.verification import (
    RefusedTokenError,
    peek_claims,
    require,
    require_moments,
    verify_signature,
)

TYPE = "command+jwt"
_ALWAYS = frozenset({"iss", "aud", "client_id", "iat", "exp", "jti", "command", "tenant"})
CLAIMS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = MappingProxyType(
    {
        "invalidate": (_ALWAYS | {"sub"}, _ALWAYS | {"sub", "aud_sub"}),
        "metadata": (_ALWAYS | {"metadata"}, _ALWAYS | {"metadata"}),
    }
)
"""By command: the claims that it must have, and the claims that it may have."""


def _error(status: int, code: str, text: str = "", **more: object) -> ReplyError:
    described = {"error_description": text} if text else {}
    return ReplyError(status, json.dumps({"error": code, **described, **more}))


class FakeCommandReceiver(FakeReceiver):
    """One installation. `users` have an active account in `tenant`. `success` may be a status that the draft forbids.

    `commands`: the supported ones. `ended` has the claims of each invalidation.
    """

    path = "/commands"

    def __init__(
        self,
        keys: PublishedKeys,
        *,
        iss: str,
        client_id: str,
        tenant: str,
        users: Collection[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock)
        self.users = users
        self.commands: Collection[str] = tuple(CLAIMS)
        self.success = 200
        self._keys = keys
        self._iss = iss
        self._client_id = client_id
        self._tenant = tenant
        self._jtis: set[str] = set()

    async def receive(self, request: web.BaseRequest, body: bytes) -> Reply:
        """Answer by the draft."""
        fields = parse_qsl(body.decode("ascii", "replace"), keep_blank_values=True)
        if request.content_type != "application/x-www-form-urlencoded" or [name for name, _ in fields] != [
            "command_token"
        ]:
            raise _error(400, "invalid_request", "not exactly one command_token in a form")
        try:
            claims = await self._claims(fields[0][1])
        except RefusedTokenError as refusal:
            raise _error(400, "invalid_request", str(refusal)) from None
        except KeysUnreadableError:
            raise _error(400, "invalid_request", "the provider's keys are unreadable") from None
        self.fail_if_asked()
        if claims["command"] == "metadata":
            context = {"iss": self._iss, "tenant": self._tenant}
            return Reply(status=200, text=json.dumps({"context": context, "commands_supported": list(self.commands)}))
        if claims["sub"] not in self.users:
            raise _error(409, "incompatible_state", account_state="unknown")
        self.ended.append(claims)
        return Reply(status=self.success, text=json.dumps({"account_state": "active"}))

    async def _claims(self, token: str) -> dict[str, Any]:
        if peek_claims(token).get("iss") != self._iss:
            raise _error(401, "unrecognized_provider")
        header, claims = verify_signature(token, *await self._keys.read())
        require(header.get("typ") == TYPE, f"typ {header.get('typ')}")
        require("nonce" not in claims, "nonce")
        require(claims.get("aud") == self.url, "aud")
        require(claims.get("client_id") == self._client_id, "client_id")
        command = str(claims.get("command"))
        if command not in self.commands:
            raise _error(400, "unsupported_command")
        must, may = CLAIMS[command]
        require(must <= claims.keys(), f"missing {sorted(must - claims.keys())}")
        require(claims.keys() <= may, f"forbidden {sorted(claims.keys() - may)}")
        require(claims["tenant"] == self._tenant, "tenant")
        require(isinstance(claims.get("metadata", {}), dict), "metadata")
        require_moments(claims, self.clock())
        require(claims["jti"] not in self._jtis, "jti repeated")
        self._jtis.add(claims["jti"])
        return claims
