"""Receivers of security event tokens by push (RFC 8935, RFC 8417, CAEP 1.0), each as strict as its rules.

`strict` follows the specifications; the others act as real receivers did.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from aiohttp import web

from tests.features.channels.receivers.fake_issuer import KeysUnreadableError, PublishedKeys
from tests.features.channels.receivers.fake_receiver import FakeReceiver, Reply, ReplyError
from tests.features.channels.receivers.verification import RefusedTokenError, peek_claims, require, verify_signature

TYPE = "secevent+jwt"
CONTENT_TYPE = "application/secevent+jwt"
SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
ALLOWED = frozenset({"iss", "aud", "iat", "jti", "sub_id", "events", "txn"})
FORMATS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "iss_sub": frozenset({"format", "iss", "sub"}),
        "email": frozenset({"format", "email"}),
        "opaque": frozenset({"format", "id"}),
    }
)
CAEP_DEV_FORMATS: Mapping[str, frozenset[str]] = MappingProxyType(
    {**FORMATS, "iss_sub": frozenset({"format", "issuer", "sub"})}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRules:
    """The checks of one receiver of security events.

    `err`: a refusal is the JSON of RFC 8935; otherwise it has the text `refusal`. `formats` None: any subject.
    `strict_claims`: no claim besides RFC 8417 and the CAEP profile. `remembers`: it acts on a `jti` once, and answers
    success again. `notes_first`: it notes the `jti` before its application runs.
    """

    typs: frozenset[str | None] | None = frozenset({TYPE})
    content_type: str | None = CONTENT_TYPE
    wrong_content_type: int = 400
    err: bool = True
    status: int = 400
    refusal: str = ""
    formats: Mapping[str, frozenset[str]] | None = field(default_factory=lambda: FORMATS)
    strict_claims: bool = True
    remembers: bool = True
    notes_first: bool = False
    cached_keys: bool = False
    key_has_alg: bool = False
    authorization: str | None = None
    subject_in_event: bool = False


EVENT_RULES: Mapping[str, EventRules] = MappingProxyType(
    {
        "strict": EventRules(),
        "quarkus": EventRules(
            typs=None, err=False, formats=None, strict_claims=False, notes_first=True, cached_keys=True
        ),
        "caep_dev": EventRules(
            typs=None, err=False, refusal="invalid token", formats=CAEP_DEV_FORMATS, strict_claims=False,
            remembers=False,
        ),
        "duo": EventRules(
            typs=None, err=False, status=500, refusal="Internal Server Error", formats=None, strict_claims=False,
            remembers=False, cached_keys=True, key_has_alg=True,
        ),
        "keycloak": EventRules(strict_claims=False, remembers=False, authorization="Bearer stream-secret"),
        "google_workspace": EventRules(formats={"email": FORMATS["email"]}, subject_in_event=True),
    }
)  # fmt: skip


class EventRefusedError(Exception):
    """The receiver refuses the token with this code of RFC 8935 §2.4."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why


def _require_format(part: object, formats: Mapping[str, frozenset[str]]) -> None:
    members = formats.get(str(part.get("format"))) if isinstance(part, dict) else None
    require(isinstance(part, dict) and part.keys() == members, "unknown subject format, or other members")


def _need(condition: object, code: str, why: str) -> None:
    if not condition:
        raise EventRefusedError(code, why)


class FakeEventReceiver(FakeReceiver):
    """One installation. `ended` has the subjects of its session-revoked events, `verified` the states of its streams.

    `acting` False: its handler fails with 500, although the token is good.
    """

    path = "/ssf/push"

    def __init__(
        self,
        rules: EventRules,
        keys: PublishedKeys,
        *,
        iss: str,
        audience: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock)
        self.rules = rules
        self.claims: list[Mapping[str, Any]] = []
        self.verified: list[str | None] = []
        self._keys = keys
        self._iss = iss
        self._audience = audience
        self._jtis: set[str] = set()

    async def receive(self, request: web.BaseRequest, body: bytes) -> Reply:
        """Answer 202 to a good token, and act on it."""
        if self.rules.content_type not in (None, request.content_type):
            raise ReplyError(self.rules.wrong_content_type)
        try:
            _need(
                self.rules.authorization in (None, request.headers.get("Authorization")),
                "authentication_failed",
                "Authorization",
            )
            claims = await self._claims(body.decode("ascii", "replace"))
            self._check_claims(claims)
        except EventRefusedError as refusal:
            raise ReplyError(self.rules.status, self._text(refusal)) from None
        self._act(claims)
        return Reply(status=202)

    def _text(self, refusal: EventRefusedError) -> str:
        return json.dumps({"err": refusal.code, "description": refusal.why}) if self.rules.err else self.rules.refusal

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            _need(peek_claims(token).get("iss") == self._iss, "invalid_issuer", "iss")
            keys, algorithms = await self._keys.read()
        except RefusedTokenError as refusal:
            raise EventRefusedError("invalid_request", str(refusal)) from None
        except KeysUnreadableError:
            raise EventRefusedError("invalid_key", "the issuer's keys are unreadable") from None
        try:
            header, claims = verify_signature(token, keys, algorithms, key_has_alg=self.rules.key_has_alg)
        except RefusedTokenError as refusal:
            raise EventRefusedError("invalid_key", str(refusal)) from None
        typ = header.get("typ")
        _need(self.rules.typs is None or typ in self.rules.typs, "invalid_request", f"typ {typ}")
        return claims

    def _check_claims(self, claims: Mapping[str, Any]) -> None:
        audience = claims.get("aud")
        _need(
            self._audience in (audience if isinstance(audience, list) else [audience]),
            "invalid_audience",
            "aud",
        )
        try:
            for name in ("iss", "aud", "iat", "jti", "events"):
                require(claims.get(name), f"no {name}")
            require(isinstance(claims["events"], dict) and len(claims["events"]) >= 1, "events")
            if self.rules.strict_claims:
                require(claims.keys() <= ALLOWED, f"forbidden: {sorted(claims.keys() - ALLOWED)}")
                require(claims.keys() >= ALLOWED - {"txn"}, "missing claims")
                require(len(claims["events"]) == 1, "not exactly one event")
                require(type(claims["iat"]) is int and claims["iat"] <= self.clock() + 5, "iat")
            self._check_subject(claims)
        except RefusedTokenError as refusal:
            raise EventRefusedError("invalid_request", str(refusal)) from None

    def _check_subject(self, claims: Mapping[str, Any]) -> None:
        event = claims["events"].get(SESSION_REVOKED)
        if event is None:
            require(VERIFICATION in claims["events"] or not self.rules.strict_claims, "unknown event")
            return
        require(isinstance(event, dict), "the event is not an object")
        subject, formats = claims.get("sub_id"), self.rules.formats
        parts = [subject]
        if isinstance(subject, dict) and subject.get("format") == "complex":
            require(subject.keys() <= {"format", "user", "session"} and "user" in subject, f"{sorted(subject)}")
            parts = [part for name, part in subject.items() if name != "format"]
        if formats is not None:
            for part in parts:
                _require_format(part, formats)
        require(not self.rules.subject_in_event or event.get("subject") == subject, "no subject in the event")

    def _act(self, claims: Mapping[str, Any]) -> None:
        jti = str(claims["jti"])
        if self.rules.remembers and jti in self._jtis:
            return
        if self.rules.notes_first:
            self._jtis.add(jti)
        self.fail_if_asked()
        self._jtis.add(jti)
        self.claims.append(claims)
        if VERIFICATION in claims["events"]:
            self.verified.append(claims["events"][VERIFICATION].get("state"))
        if SESSION_REVOKED in claims["events"]:
            self.ended.append(claims.get("sub_id") or {})
