"""Builds the claims of a logout token, and decides which of `sub` and `sid` a client receives.

Both are done at each attempt, so that a corrected token profile also applies to pending deliveries.
"""

import math
from typing import Literal, assert_never

from notifier.model.client import Client, SubjectMode
from notifier.model.delivery import Delivery
from notifier.model.outcome import DeadReason
from notifier.model.record import record

# Claims that the specification reserves: neither `claims` nor `reason_claim` may name them (B10–B14).
RESERVED_CLAIMS = frozenset({"iss", "sub", "aud", "iat", "nbf", "exp", "jti", "sid", "events", "nonce"})
IDENTIFYING_CLAIMS = frozenset(
    {
        "acr", "act", "address", "amr", "athash", "authtime", "azp", "birthdate", "chash", "clientid", "cnf",
        "familyname", "gender", "givenname", "mayact", "middlename", "name", "nickname", "oid", "picture", "profile",
        "shash", "scp", "subjwk", "uid", "uniquename", "upn", "website", "wids",
    }
)  # fmt: skip
_IDENTIFYING_PARTS = (
    "access", "accountname", "admin", "authorit", "authoriz", "claim", "entitlement", "group", "identit",
    "kubernetesio", "login", "mail", "memberof", "permission", "phone", "privilege", "role", "scope", "user",
)  # fmt: skip


def is_identifying_claim(claim: str) -> bool:
    """Return True if services may use a claim of this name to identify or authorize a user.

    A token with such a claim could pass for an ID token or an access token, so no logout token has one. Case and
    characters other than letters are ignored: `cognito:groups` and `https://example.com/roles` name groups and roles.
    """
    letters = "".join(filter(str.isalpha, claim.lower()))
    return letters in IDENTIFYING_CLAIMS or any(part in letters for part in _IDENTIFYING_PARTS)


LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
MAX_LIFETIME_SECONDS = 120  # seconds: `exp` is at most two minutes ahead (B29)

Claims = dict[str, object]
NoSubject = Literal[DeadReason.NO_SID, DeadReason.NO_SUB]
"""Why no token can be built: the event lacks what the client requires. The delivery becomes a dead letter at once."""


@record
class Subject:
    """The `sub` and `sid` of a token. At least one is set (B12). Without `sid`, all sessions of `sub` end (B13)."""

    sub: str | None
    sid: str | None


def subject_of(delivery: Delivery, client: Client) -> Subject | NoSubject:
    """Return the `sub` and `sid` that this client receives (B7, B12, R8), or why it can receive no token.

    A pairwise client receives only the `sub` of its entry, since the event's `sub` would link its user to users of
    other clients. A client that requires `sid` receives it in every mode.
    """
    mode, sid = client.token.subject, delivery.sid
    sub = delivery.sub if delivery.entry_sub or not client.pairwise else None
    sid_required = client.backchannel_logout_session_required or mode is SubjectMode.SID
    if sid is None and (sid_required or client.token.requires == "sid"):
        return DeadReason.NO_SID
    if sub is None and client.token.requires == "sub":
        return DeadReason.NO_SUB
    match mode:
        case SubjectMode.BOTH:  # the usual mode
            return DeadReason.NO_SUB if sub is None and sid is None else Subject(sub=sub, sid=sid)
        case SubjectMode.SID:
            return Subject(sub=None, sid=sid)
        case SubjectMode.SID_FIRST if sid is not None:
            return Subject(sub=None, sid=sid)
        case SubjectMode.SID_FIRST:
            return DeadReason.NO_SUB if sub is None else Subject(sub=sub, sid=None)
        case SubjectMode.SUB:
            return DeadReason.NO_SUB if sub is None else Subject(sub=sub, sid=sid if sid_required else None)
        case _:
            assert_never(mode)


def has_session(delivery: Delivery, client: Client) -> bool:
    """Return True if the request to the client names one session (`sid`), so that it cannot end a newer session.

    A worker's call of a front-channel URI has no token, and names the session if the event does.
    """
    if client.channel is not None:
        return client.channel.names_session and delivery.sid is not None
    if client.backchannel_logout_uri is None and client.logout_uri is not None:
        return delivery.sid is not None
    subject = subject_of(delivery, client)
    return isinstance(subject, Subject) and subject.sid is not None


def build_claims(delivery: Delivery, client: Client, *, now: float, jti: str) -> Claims | NoSubject:
    """Return the claims of one attempt (B10–B15, B29, R1, R4, R5, R10), or why no token can be built.

    `now` is in epoch seconds. `jti` must be new. The `claims` of the client's profile never replace claims of the
    specification, and `nonce` is always omitted (B14).
    """
    subject = subject_of(delivery, client)
    if not isinstance(subject, Subject):
        return subject
    profile = client.token
    claims: Claims = {}
    if profile.claims:
        claims = {name: value for name, value in profile.claims.items() if name not in RESERVED_CLAIMS}
    if profile.reason_claim is not None and profile.reason_claim not in RESERVED_CLAIMS and delivery.reason is not None:
        claims[profile.reason_claim] = delivery.reason
    issued_at = math.floor(now)  # rounded down: never in the future (R10)
    claims |= {
        "iss": client.iss,
        "aud": client.issued_id if profile.audience is None else [client.issued_id, *profile.audience],
        "iat": issued_at,
        "exp": issued_at + min(MAX_LIFETIME_SECONDS, math.ceil(profile.lifetime)),
        "jti": jti,
        "events": {LOGOUT_EVENT: {}},
    }
    if subject.sub is not None:
        claims["sub"] = subject.sub
    if subject.sid is not None:
        claims["sid"] = subject.sid
    return claims
