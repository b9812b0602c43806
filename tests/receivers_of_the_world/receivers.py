"""The receivers of docs/specification.md: what each checks of a logout token, ends and answers, as strict as its row.

They are implemented from their rows, with another JOSE library than the signer's. `Row` is the row; `Site` is one
installation of it, with signed-in users, on its own socket.
"""

import contextlib
import json
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet

from tests.system.loopback import LoopbackServer

EVENT = "http://schemas.openid.net/event/backchannel-logout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The checks of one receiver. Ages in seconds; `typs` None: any; None in `typs`: it may be absent.

    `any_kid`: it tries each key. `any_iat`: it ignores it. `any_event`: the member may be other than an object, and
    `events` a text that contains one. `both_must_match`: a session is ended by both of `sub` and `sid`.
    `by_sub`: all of a user's are, by `sub`, and none by `sid`. `no_sid_fits`: with a `sid`, none is. `sub_needed`:
    without a `sub`, none is. All answer success then.
    """

    typs: frozenset[str | None] | None = None
    algs: frozenset[str] = frozenset({"RS256"})
    required: frozenset[str] = frozenset()
    oldest: float | None = None
    skew: float = 0.0
    jti_memory: float | None = None
    sid_required: bool = False
    kid_required: bool = False
    event_exactly_empty: bool = False
    both_end_all: bool = False
    both_must_match: bool = False
    by_sub: bool = False
    no_sid_fits: bool = False
    sub_needed: bool = False
    any_kid: bool = False
    any_iat: bool = False
    any_event: bool = False
    says_why: bool = True
    success: int = 200


WORLD: Mapping[str, Row] = {
    "mod_auth_openidc": Row(required=frozenset({"iat", "jti"}), oldest=600, skew=600, jti_memory=1200),
    "express_openid_connect": Row(both_end_all=True, success=204),
    "spring": Row(typs=frozenset({"JWT", "logout+jwt", None}), required=frozenset({"iat", "jti", "exp"}), skew=60),
    "duende_bff": Row(
        algs=frozenset({f"{kind}{bits}" for kind in ("RS", "PS", "ES") for bits in (256, 384, 512)}),
        required=frozenset({"exp"}),
        skew=300,
        both_must_match=True,
        any_kid=True,
        any_iat=True,
        any_event=True,
        says_why=False,
    ),
    "keycloak": Row(algs=frozenset({"RS256", "PS256", "ES256"}), required=frozenset({"exp", "iat", "jti"})),
    "nextcloud": Row(required=frozenset({"exp", "iat", "jti"})),
    "pac4j": Row(required=frozenset({"exp", "iat", "jti"}), sid_required=True),
    "rauthy": Row(
        typs=frozenset({"logout+jwt", None}),
        required=frozenset({"exp", "iat"}),
        oldest=30,
        kid_required=True,
        event_exactly_empty=True,
    ),
    "keycloak_broker": Row(required=frozenset({"exp", "iat", "jti"}), no_sid_fits=True),
    "quarkus": Row(required=frozenset({"exp", "iat"}), kid_required=True, sub_needed=True),
    "open_liberty": Row(required=frozenset({"exp", "iat", "jti"}), kid_required=True, sub_needed=True),
    "synapse": Row(required=frozenset({"exp", "iat", "jti"}), sid_required=True, both_must_match=True),
    "django_lasuite": Row(required=frozenset({"exp", "iat", "jti"}), kid_required=True, by_sub=True, success=204),
    "django_pyoidc": Row(required=frozenset({"iat", "jti"}), by_sub=True),
    "nextjs_auth0": Row(required=frozenset({"exp", "iat"}), success=204),
    "auth0_sample": Row(typs=frozenset({"JWT"}), required=frozenset({"exp", "iat"}), oldest=120),
}


class RefusedTokenError(Exception):
    """The receiver answers 400 with this reason."""


def _need(condition: object, text: str) -> None:
    if not condition:
        raise RefusedTokenError(text)


@dataclass(slots=True, kw_only=True)
class Site:
    """One installation. `sessions` are the (sub, sid) signed in; `failing` statuses are returned after all checks."""

    row: Row
    jwks: Mapping[str, Any]
    iss: str
    client_id: str
    clock: Callable[[], float]
    sessions: set[tuple[str, str]]
    failing: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""
    _seen: dict[str, float] = field(default_factory=dict)

    def receive(self, body: bytes) -> tuple[int, str]:
        """Return status and body of the answer to one POST."""
        self.bodies.append(body)
        try:
            claims = self._verified(body)
        except RefusedTokenError as refusal:
            said = {"error": "invalid_request", "error_description": str(refusal)}
            return 400, json.dumps(said) if self.row.says_why else ""
        if self.failing:
            return self.failing.pop(0), json.dumps({"error": "application_error"})
        self._end(claims.get("sub"), claims.get("sid"))
        return self.row.success, ""

    def _verified(self, body: bytes) -> dict[str, Any]:
        fields = parse_qsl(body.decode(), keep_blank_values=True)
        _need([name for name, _ in fields] == ["logout_token"], "not exactly one logout_token")
        token = fields[0][1]
        _need(token.count(".") == 2, "an encrypted token, or none")
        claims = self._signed(token)
        self._moments(claims)
        _need(claims.get("iss") == self.iss, "iss")
        audience = claims.get("aud")
        _need(self.client_id in (audience if isinstance(audience, list) else [audience]), "aud")
        _need("nonce" not in claims, "nonce")
        self._subject_and_event(claims)
        self._remember(claims)
        return claims

    def _signed(self, token: str) -> dict[str, Any]:
        keys = KeySet.import_key_set({"keys": [dict(key) for key in self.jwks["keys"]]})
        fault: Exception | None = None
        for tried in keys.keys if self.row.any_kid else [keys]:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", SecurityWarning)
                    signed = jws.deserialize_compact(token, tried, algorithms=sorted(self.row.algs))
                break
            except (JoseError, ValueError) as error:
                fault = error
        else:
            raise RefusedTokenError(f"signature: {fault}")
        header = signed.headers()
        _need(self.row.typs is None or header.get("typ") in self.row.typs, f"typ {header.get('typ')}")
        _need(header.get("kid") or not self.row.kid_required, "kid")
        return dict(json.loads(signed.payload))

    def _moments(self, claims: Mapping[str, Any]) -> None:
        now, row = self.clock(), self.row
        _need(row.required <= claims.keys(), f"missing {sorted(row.required - claims.keys())}")
        if "exp" in claims:
            _need(now < claims["exp"] + row.skew, "expired")
        _need(claims.get("nbf", now) <= now + row.skew, "nbf in the future")
        if "iat" in claims and not row.any_iat:
            _need(claims["iat"] <= now + row.skew, "iat in the future")
            _need(row.oldest is None or now - claims["iat"] <= row.oldest, "iat too old")

    def _subject_and_event(self, claims: Mapping[str, Any]) -> None:
        _need(claims.get("sub") or claims.get("sid"), "neither sub nor sid")
        _need(claims.get("sid") or not self.row.sid_required, "no sid")
        events = claims.get("events") or {}
        event = (json.loads(events) if self.row.any_event and isinstance(events, str) else events).get(EVENT)
        _need(isinstance(event, dict) or (self.row.any_event and event is not None), "no logout event")
        _need(event == {} or not self.row.event_exactly_empty, "the event is not {}")

    def _remember(self, claims: Mapping[str, Any]) -> None:
        if self.row.jti_memory is not None:
            now = self.clock()
            _need(self._seen.get(claims["jti"], -1e9) + self.row.jti_memory < now, "jti repeated")
            self._seen[claims["jti"]] = now

    def _end(self, sub: str | None, sid: str | None) -> None:
        if (self.row.no_sid_fits and sid) or (self.row.sub_needed and not sub):
            return
        if self.row.by_sub:
            self.sessions = {one for one in self.sessions if one[0] != sub}
        elif self.row.both_must_match and sub and sid:
            self.sessions -= {(sub, sid)}
        elif sid and not (self.row.both_end_all and sub is not None):
            self.sessions = {one for one in self.sessions if one[1] != sid}
        else:
            self.sessions = {one for one in self.sessions if one[0] != sub and one[1] != sid}


@contextlib.asynccontextmanager
async def listening(site: Site) -> AsyncIterator[Site]:
    """Run the site on a port of 127.0.0.1."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        assert request.method == "POST"
        assert request.content_type == "application/x-www-form-urlencoded"
        status, text = site.receive(await request.read())
        return web.Response(status=status, text=text)

    async with LoopbackServer(handle) as server:
        site.url = f"{server.base}/backchannel-logout"
        yield site
