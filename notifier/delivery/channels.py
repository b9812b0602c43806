"""The two channels of the core, by which a client is notified: what an attempt sends, and what the answer means.

- Back-Channel Logout 1.0: a signed logout token in a form, by POST. A client that is registered for encrypted tokens
  receives the signed token in a JWE, never in clear (B16). A token is made for one POST and is neither stored nor
  logged (R2).
- Front-Channel Logout 1.0 without a browser: a GET with `iss` and `sid`, for clients that need no more than that, since
  the request has no cookie of the user's. Some endpoints end with a redirect; `success_statuses` may list that status.
"""

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus

from notifier.delivery.ports import Channel, ChannelTools, Encrypter, Signer
from notifier.delivery.verdict import Dead
from notifier.model.client import Client
from notifier.model.client_channel import BACK_CHANNEL, FRONT_CHANNEL
from notifier.model.delivery import Delivery
from notifier.model.errors import InternalFault
from notifier.model.front_channel import uri_of
from notifier.model.logout_token import build_claims
from notifier.model.moment import Clock
from notifier.model.outcome import (
    Cause,
    DeadReason,
    Delivered,
    HttpResponse,
    Outcome,
    Reason,
    Refused,
    TransportFailure,
    to_outcome,
)
from notifier.model.presets import find_preset_excess
from notifier.model.record import copy_record
from notifier.model.request import PreparedRequest

_NO_TOKEN = {
    DeadReason.NO_SID: "the client must have `sid`, and the event has none",
    DeadReason.NO_SUB: "the client must have `sub`, and the event has none for it",
}
_NO_SID = "the client is notified by iss and sid alone (front_channel: server), and the event has no sid"


class BackChannel:
    """Makes logout tokens and reads what clients answer to them. Satisfies `Channel`.

    The arguments are those of `ChannelTools`. `encrypter` is needed for clients with an `encryption`.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        clock: Clock,
        new_jti: Callable[[], str],
        unverifiable: Callable[[Client], str | None] = lambda _client: None,
        encrypter: Encrypter | None = None,
        jti_prefixes: Mapping[str, str] | None = None,
    ) -> None:
        self._jti_prefixes = jti_prefixes
        self._signer = signer
        self._clock = clock
        self._new_jti = new_jti
        self._unverifiable = unverifiable
        self._encrypter = encrypter

    async def prepare(self, delivery: Delivery, client: Client) -> PreparedRequest | Dead:
        """Return a request with a new signed token; Dead if the event lacks a claim that the client requires.

        Raises InternalFault if the token cannot be signed or encrypted now.
        """
        jti = self._new_jti()
        if self._jti_prefixes:
            jti = self._jti_prefixes.get(delivery.iss, "") + jti
        claims = build_claims(delivery, client, now=self._clock(), jti=jti)
        if isinstance(claims, DeadReason):
            return Dead(reason=claims, text=_NO_TOKEN[claims])
        token = await self._signer.sign(delivery.iss, client.token.alg, client.token.typ, claims)
        secret = token
        if client.encryption is not None:
            if self._encrypter is None:
                raise InternalFault(Cause.ENCRYPTION, "nothing here encrypts tokens")
            token = await self._encrypter.encrypt(client, client.encryption, token)
            secret = f"{secret} {token}"  # the client may quote what it has decrypted
        # A JWS or JWE has base64url and dots only, so nothing in it needs an escape.
        return PreparedRequest(jti=jti, body=b"logout_token=" + token.encode(), secret=secret)

    def read(self, result: HttpResponse | TransportFailure, client: Client) -> Outcome:
        """Return the outcome by the client's response policy. A 400's text begins with the preset's explanation."""
        outcome = to_outcome(result, client.response, self._clock())
        if isinstance(outcome, Delivered) or outcome.status != HTTPStatus.BAD_REQUEST:
            return outcome
        if (explanation := find_preset_excess(client)) is None:
            return outcome
        return copy_record(outcome, text=f"{explanation}; its answer: {outcome.text}" if outcome.text else explanation)

    def internal_fault(self, outcome: Outcome, client: Client) -> InternalFault | None:
        """Return the internal fault that explains why the client rejected a token; None if none is known.

        Signing: the key is not published, or too new. Encryption: the client may have replaced its key.
        """
        if outcome.reason is not Reason.REJECTED_TOKEN:
            return None
        if (signing_problem := self._unverifiable(client)) is not None:
            return InternalFault(Cause.SIGNING, signing_problem)
        if client.encryption is None or self._encrypter is None:
            return None
        key_problem = self._encrypter.explain_rejection(client.encryption)
        return None if key_problem is None else InternalFault(Cause.ENCRYPTION, key_problem)


class FrontChannel:
    """Calls the client's `frontchannel_logout_uri` by GET, without a browser. Satisfies `Channel`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def prepare(self, delivery: Delivery, client: Client) -> PreparedRequest | Dead:
        """Return a GET of the client's URI with `iss` and `sid`; Dead if the event has no `sid`. No token is sent."""
        uri = None if delivery.sid is None else uri_of(client, delivery.iss, delivery.sid)
        if delivery.sid is None or uri is None:
            return Dead(reason=DeadReason.NO_SID, text=_NO_SID)
        return PreparedRequest(jti="", body=None, secret=delivery.sid, uri=uri)

    def read(self, result: HttpResponse | TransportFailure, client: Client) -> Outcome:
        """Return the outcome by the client's response policy. A 400 is REFUSED, since no token was sent.

        A web page is what this URI answers to browsers.
        """
        outcome = to_outcome(result, client.response, self._clock())
        if isinstance(outcome, Delivered) and outcome.is_web_page:
            return copy_record(outcome, is_web_page=False)
        if isinstance(outcome, Refused) and outcome.reason is Reason.REJECTED_TOKEN:
            return copy_record(outcome, reason=Reason.REFUSED)
        return outcome

    def internal_fault(self, outcome: Outcome, client: Client) -> InternalFault | None:  # noqa: ARG002
        """Return None: no internal fault can make this request wrong."""
        return None


def build_channels(
    tools: ChannelTools, encrypter: Encrypter, further: Iterable[Mapping[str, Callable[[ChannelTools], Channel]]]
) -> Mapping[str, Channel]:
    """Return all channels by their kind (`Client.channel_kind`). `further`: other channels, by their kind."""
    back = BackChannel(
        tools.signer, clock=tools.clock, new_jti=tools.new_jti, unverifiable=tools.unverifiable, encrypter=encrypter,
        jti_prefixes=tools.jti_prefixes,
    )  # fmt: skip
    channels: dict[str, Channel] = {BACK_CHANNEL: back, FRONT_CHANNEL: FrontChannel(tools.clock)}
    for classes in further:
        channels |= {kind: make(tools) for kind, make in classes.items()}
    return channels
