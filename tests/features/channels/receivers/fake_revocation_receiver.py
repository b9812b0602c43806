"""Receivers of Global Token Revocation (draft-parecki-oauth-global-token-revocation-05), each as strict as its rules.

Status by the draft: 204 started, 400 body or format, 401 proof, 403 scope, 404 unknown user, 422 not possible now.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from aiohttp import web

from tests.features.channels.receivers.fake_issuer import KeysUnreadableError, PublishedKeys
from tests.features.channels.receivers.fake_receiver import FakeReceiver, Reply, ReplyError, parse_object
from tests.features.channels.receivers.verification import (
    RefusedTokenError,
    peek_claims,
    require,
    require_moments,
    verify_signature,
)

TYPE = "global-token-revocation+jwt"
FORMATS: Mapping[str, tuple[frozenset[str], str]] = MappingProxyType(
    {
        "iss_sub": (frozenset({"format", "iss", "sub"}), "sub"),
        "email": (frozenset({"format", "email"}), "email"),
        "opaque": (frozenset({"format", "id"}), "id"),
    }
)
"""By format of RFC 9493: its members, and which of them identifies the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationRules:
    """The checks of one receiver. `typs` and `longest` None: any; None in `typs`: it may be absent.

    `proof`: `jwt`, `key` (a static one), `access_token`. `any_format`: an unlisted format names the user by `id`.
    `own_issuer`: the `iss` of the subject must be the caller. `dies`: after an unknown user it listens no more.
    `unforeseen`: the answer to a wrong body.
    """

    proof: str = "jwt"
    typs: frozenset[str | None] | None = frozenset({TYPE})
    longest: float | None = 300
    jti_once: bool = True
    cached_keys: bool = False
    member: str = "sub_id"
    formats: frozenset[str] = frozenset(FORMATS)
    any_format: bool = False
    own_issuer: bool = True
    exact_members: bool = True
    success: int = 204
    unknown_user: int = 404
    dies: bool = False
    scope: str = "global_token_revocation"
    missing_scope: int = 403
    unforeseen: int = 400
    keys_unreadable: int = 503


REVOCATION_RULES: Mapping[str, RevocationRules] = MappingProxyType(
    {
        "redfox": RevocationRules(typs=frozenset({TYPE, "JWT", None})),
        "okta_workshop": RevocationRules(proof="key", formats=frozenset({"email"}), exact_members=False, dies=True),
        "okta_org": RevocationRules(proof="access_token", scope="okta.universalLogout.manage"),
        "bank": RevocationRules(
            typs=None, jti_once=False, cached_keys=True, own_issuer=False, exact_members=False, unknown_user=204
        ),
        "janssen": RevocationRules(
            proof="access_token",
            formats=frozenset(),
            any_format=True,
            unknown_user=204,
            missing_scope=401,
            unforeseen=500,
        ),
        "auth0": RevocationRules(member="subject", formats=frozenset({"iss_sub"}), success=200),
    }
)


class FakeRevocationReceiver(FakeReceiver):
    """One installation. `client_id` is the caller's name at its issuer `iss`; `users` are known by sub, email or id.

    `scope_of` returns the scope of a valid access token, None for any other.
    """

    path = "/global-token-revocation"

    def __init__(
        self,
        rules: RevocationRules,
        keys: PublishedKeys,
        *,
        iss: str,
        client_id: str,
        users: Collection[str],
        api_key: str = "workshop-api-key",
        scope_of: Callable[[str], str | None] = lambda _token: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock)
        self.rules = rules
        self.users = users
        self._keys = keys
        self._iss = iss
        self._client_id = client_id
        self._api_key = api_key
        self._scope_of = scope_of
        self._jtis: set[str] = set()

    async def receive(self, request: web.BaseRequest, body: bytes) -> Reply:
        """Verify the proof first, then the body."""
        await self._prove(request.headers.get("Authorization", ""))
        if request.content_type != "application/json":
            raise ReplyError(self.rules.unforeseen, "the body is not JSON")
        subject = self._subject(body)
        self.fail_if_asked()
        member = FORMATS[subject["format"] if subject["format"] in self.rules.formats else "opaque"][1]
        if subject.get(member) not in self.users:
            raise ReplyError(self.rules.unknown_user, last=self.rules.dies)
        self.ended.append(subject)
        return Reply(status=self.rules.success)

    async def _prove(self, authorization: str) -> None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ReplyError(401, "no proof")
        match self.rules.proof:
            case "key" if token != self._api_key:
                raise ReplyError(401, "unknown key")
            case "access_token":
                self._check_access_token(token)
            case "jwt":
                try:
                    await self._check_proof(token)
                except RefusedTokenError as refusal:
                    raise ReplyError(401, str(refusal)) from None
                except KeysUnreadableError:
                    raise ReplyError(self.rules.keys_unreadable, "the issuer's keys are unreadable") from None

    def _check_access_token(self, token: str) -> None:
        if (scope := self._scope_of(token)) is None:
            raise ReplyError(401, f"unknown token {token}")
        if self.rules.scope not in scope.split():
            raise ReplyError(self.rules.missing_scope, "scope")

    async def _check_proof(self, token: str) -> None:
        unverified = peek_claims(token)
        require(unverified.get("iss") == self._iss and unverified.get("sub") == self._client_id, "unknown provider")
        header, claims = verify_signature(token, *await self._keys.read())
        require(self.rules.typs is None or header.get("typ") in self.rules.typs, f"typ {header.get('typ')}")
        require(claims.get("aud") == self.url, "aud")
        require_moments(claims, self.clock(), longest=self.rules.longest)
        jti = claims.get("jti")
        require(isinstance(jti, str) and jti, "jti")
        require(not self.rules.jti_once or jti not in self._jtis, "jti repeated")
        self._jtis.add(str(jti))

    def _subject(self, body: bytes) -> dict[str, Any]:
        content = parse_object(body)
        subject = None if content is None else content.get(self.rules.member)
        if content is None or not isinstance(subject, dict) or len(content) != 1:
            raise ReplyError(self.rules.unforeseen, f"not exactly one {self.rules.member}")
        named = subject.get("format")
        if not isinstance(named, str) or (named not in self.rules.formats and not self.rules.any_format):
            raise ReplyError(self.rules.unforeseen, "unknown format")
        members, user = FORMATS[named if named in self.rules.formats else "opaque"]
        if not isinstance(subject.get(user), str) or (self.rules.exact_members and subject.keys() != members):
            raise ReplyError(self.rules.unforeseen, f"members {sorted(subject)}")
        if self.rules.own_issuer and "iss" in members and subject.get("iss") != self._iss:
            raise ReplyError(self.rules.unforeseen, "subject of another issuer")
        return subject
