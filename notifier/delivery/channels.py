"""The two channels by which a client is notified: what an attempt sends, and what the client's answer means.

- Back-Channel Logout 1.0: a signed logout token in a form, by POST. A client that is registered for encrypted tokens
  receives the signed token in a JWE, never in clear (B16). A token is made for one POST and is neither stored nor
  logged (R2).
- Front-Channel Logout 1.0 without a browser: a GET with `iss` and `sid`, for clients that need no more than that, since
  the request has no cookie of the user's. Some endpoints end with a redirect; `success_statuses` may list that status.

Only this module decides which of `sub` and `sid` a client receives. It decides at each attempt, so that a corrected
token profile also applies to pending deliveries.
"""

import math
from collections.abc import Callable
from typing import Literal, assert_never

from notifier.delivery.ports import Channel, Encrypter, Push, Signer
from notifier.delivery.verdict import Dead
from notifier.model.client import RESERVED_CLAIMS, Client, SubjectMode
from notifier.model.delivery import Delivery
from notifier.model.errors import OurFault
from notifier.model.front_channel import uri_of
from notifier.model.frozen import frozen, replace
from notifier.model.moment import Clock
from notifier.model.outcome import Answer, Break, Cause, DeadReason, Delivered, Outcome, Reason, Refused, read_wire
from notifier.model.presets import meaning_of

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
MAX_LIFETIME = 120  # seconds: `exp` is at most two minutes ahead (B29)
_NO_TOKEN = {
    DeadReason.NO_SID: "the client must have `sid`, and the event has none",
    DeadReason.NO_SUB: "the client must have `sub`, and the event has none for it",
}
_NO_SID = "the client is told by iss and sid alone (front_channel: server), and the event has no sid"

Claims = dict[str, object]
NoSubject = Literal[DeadReason.NO_SID, DeadReason.NO_SUB]
"""Why no token can be made: the client requires what the event does not give. The delivery is a dead letter at once."""


@frozen
class Subject:
    """Whom a token is about. At least one of the two is set (B12). Without `sid`, all sessions of `sub` end (B13)."""

    sub: str | None
    sid: str | None


def subject_of(delivery: Delivery, client: Client) -> Subject | NoSubject:
    """Choose which of `sub` and `sid` this client gets (B7, B12, R8).

    A pairwise client gets only the `sub` of its own entry. The event's `sub` would link its user to those of other
    clients. A client that requires `sid` gets it in every mode. No token is made without what its preset requires.
    """
    mode, sid = client.token.subject, delivery.sid
    sub = delivery.sub if delivery.entry_sub or not client.pairwise else None
    sid_required = client.backchannel_logout_session_required or mode is SubjectMode.SID
    if sid is None and (sid_required or client.token.requires == "sid"):
        return DeadReason.NO_SID
    if sub is None and client.token.requires == "sub":
        return DeadReason.NO_SUB
    match mode:
        case SubjectMode.BOTH:  # the usual one
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


def carries_sid(delivery: Delivery, client: Client) -> bool:
    """True if the token names one session. A token that does not goes stale: later it may end a newer session."""
    subject = subject_of(delivery, client)
    return isinstance(subject, Subject) and subject.sid is not None


def claims_for(delivery: Delivery, client: Client, *, now: float, jti: str) -> Claims | NoSubject:
    """Return the claims of one attempt (B10–B15, B29, R1, R4, R5, R10), or why there can be none.

    `now` is in seconds since the epoch. `jti` must be new. The client's own `claims` never replace the specification's,
    and `nonce` is always left out (B14), whatever the profile says.
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
        "aud": client.client_id if profile.audience is None else [client.client_id, *profile.audience],
        "iat": issued_at,
        "exp": issued_at + min(MAX_LIFETIME, math.ceil(profile.lifetime)),
        "jti": jti,
        "events": {LOGOUT_EVENT: {}},
    }
    if subject.sub is not None:
        claims["sub"] = subject.sub
    if subject.sid is not None:
        claims["sid"] = subject.sid
    return claims


class BackChannel:
    """Makes logout tokens and reads what clients answer to them. Satisfies `Channel`.

    `new_jti` never gives the same id twice. `unverifiable` says why the client cannot verify what is signed for it, or
    None if nothing is known against it. It is asked only after a 400. `encrypter` serves clients with an `encryption`.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        clock: Clock,
        new_jti: Callable[[], str],
        unverifiable: Callable[[Client], str | None] = lambda _client: None,
        encrypter: Encrypter | None = None,
    ) -> None:
        self._signer = signer
        self._clock = clock
        self._new_jti = new_jti
        self._unverifiable = unverifiable
        self._encrypter = encrypter

    def uri(self, client: Client) -> str:
        """Return the client's `backchannel_logout_uri`."""
        return client.backchannel_logout_uri or ""

    def names_session(self, delivery: Delivery, client: Client) -> bool:
        """Return True if the token has a `sid`."""
        return carries_sid(delivery, client)

    async def prepare(self, delivery: Delivery, client: Client) -> Push | Dead:
        """Sign a new token. Raises OurFault if it cannot be signed, or encrypted, now."""
        jti = self._new_jti()
        claims = claims_for(delivery, client, now=self._clock(), jti=jti)
        if isinstance(claims, DeadReason):
            return Dead(reason=claims, text=_NO_TOKEN[claims])
        token = await self._signer.sign(delivery.iss, client.token.alg, client.token.typ, claims)
        secret = token
        if client.encryption is not None:
            if self._encrypter is None:
                raise OurFault(Cause.ENCRYPTION, "nothing here encrypts tokens")
            token = await self._encrypter.encrypt(client, client.encryption, token)
            secret = f"{secret} {token}"  # the client may quote what it has decrypted
        # A JWS or JWE has base64url and dots only, so nothing in it needs an escape.
        return Push(jti=jti, body=b"logout_token=" + token.encode(), secret=secret)

    def read(self, answer: Answer | Break, client: Client) -> Outcome:
        """Read the client's answer by its response policy. What is no success is explained if its preset can."""
        outcome = read_wire(answer, client.response, self._clock())
        means = None if isinstance(outcome, Delivered) else meaning_of(client, outcome.status)
        if means is None:
            return outcome
        return replace(outcome, text=f"{means}; it said: {outcome.text}" if outcome.text else means)

    def our_fault(self, outcome: Outcome, client: Client) -> OurFault | None:
        """Blame ourselves for a rejected token that the client must reject.

        The key that signs is not published, or too new; or the key that it was encrypted to may be an old one.
        """
        if outcome.reason is not Reason.REJECTED_TOKEN:
            return None
        if (why := self._unverifiable(client)) is not None:
            return OurFault(Cause.SIGNING, why)
        if client.encryption is None or self._encrypter is None:
            return None
        doubt = self._encrypter.doubted(client.encryption)
        return None if doubt is None else OurFault(Cause.ENCRYPTION, doubt)


class FrontChannel:
    """Makes the address that is called. Satisfies `Channel`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def uri(self, client: Client) -> str:
        """Return the client's `frontchannel_logout_uri`."""
        return client.told_at or ""

    def names_session(self, delivery: Delivery, client: Client) -> bool:  # noqa: ARG002
        """Return True if the delivery has a `sid`."""
        return delivery.sid is not None

    async def prepare(self, delivery: Delivery, client: Client) -> Push | Dead:
        """Add `iss` and `sid` to the address. There is no token, and so no `jti`."""
        uri = None if delivery.sid is None else uri_of(client, delivery.iss, delivery.sid)
        if delivery.sid is None or uri is None:
            return Dead(reason=DeadReason.NO_SID, text=_NO_SID)
        return Push(jti="", body=None, secret=delivery.sid, uri=uri)

    def read(self, answer: Answer | Break, client: Client) -> Outcome:
        """Read the client's answer by its response policy. A 400 refuses the call: there was no token."""
        outcome = read_wire(answer, client.response, self._clock())
        if isinstance(outcome, Refused) and outcome.reason is Reason.REJECTED_TOKEN:
            return replace(outcome, reason=Reason.REFUSED)
        return outcome

    def our_fault(self, outcome: Outcome, client: Client) -> OurFault | None:  # noqa: ARG002
        """Return None: nothing of ours is in what is sent."""
        return None


def by_address(back: Channel, front: Channel) -> Callable[[Client], Channel]:
    """Return the function that chooses a client's channel: `front` if it has no `backchannel_logout_uri`."""
    return lambda client: front if client.backchannel_logout_uri is None else back
