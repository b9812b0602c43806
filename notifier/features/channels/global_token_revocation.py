"""Notifies a client by Global Token Revocation (draft-parecki-oauth-global-token-revocation): all that a user has ends.

The body names the user in JSON. The proof is a JWT for this address only, an access token, or headers of the client.
A 401 refuses the proof: a new key explains it, so it is retried a few times (R12). A 422 means that the receiver could
not revoke now. A 404 means that the user is unknown there, but also that the address is wrong, so it is final, unless
`success_statuses` has it.
"""

import json
import time

from notifier.delivery.ports import ChannelTools
from notifier.delivery.verdict import Dead
from notifier.features.channels.access_tokens import AccessTokens
from notifier.features.channels.channel_presets import REVOCATION_PRESETS
from notifier.features.channels.channel_settings import GlobalTokenRevocationSettings
from notifier.features.channels.signed_channel import SignedChannel, judge
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.outcome import Failed, HttpResponse, Outcome, Reason, Refused
from notifier.model.request import PreparedRequest, RequestExtras

TYPE = "global-token-revocation+jwt"
LIFETIME_SECONDS = 300  # the longest that receivers accept
_HEADERS = (("Content-Type", "application/json"),)


class GlobalTokenRevocation(SignedChannel):
    """Makes revocation requests, and reads the responses of receivers. Satisfies `Channel`."""

    def __init__(self, tools: ChannelTools) -> None:
        super().__init__(tools)
        self._access_tokens = AccessTokens(time.monotonic)

    async def prepare(self, delivery: Delivery, client: Client) -> PreparedRequest | Dead:
        """Return a request with a new proof; Dead if the event does not name the user as the client needs.

        Raises InternalFault if there is no proof now.
        """
        settings = _settings_of(client)
        subject = self._subject(settings.subject, delivery, client)
        if isinstance(subject, Dead):
            return subject
        body = json.dumps({settings.member: subject}, separators=(",", ":")).encode()
        if settings.proof.way == "headers":
            return PreparedRequest(jti="", body=body, secret="", extras=RequestExtras(headers=_HEADERS))
        jti, renew = "", None
        if settings.proof.way is None:
            token = await self._access_tokens.get(client, settings.proof)
            renew = self._access_tokens.renewal(client, token)
        else:
            token, jti = await self._sign(delivery, client, TYPE, self._claims(client, settings))
        extras = RequestExtras(headers=_HEADERS, authorization=f"Bearer {token}")
        return PreparedRequest(jti=jti, body=body, secret=token, extras=extras, renew=renew)

    def _claims(self, client: Client, settings: GlobalTokenRevocationSettings) -> dict[str, object]:
        issued_at = self._issued_at()
        claims: dict[str, object] = {
            "iss": client.iss,
            "sub": client.issued_id,
            "aud": settings.uri,
            "iat": issued_at,
            "exp": issued_at + LIFETIME_SECONDS,
        }
        return claims | {"nbf": issued_at} if settings.not_before else claims

    def _successes_at(self, client: Client) -> tuple[int, ...]:
        preset = _settings_of(client).preset
        return (204,) if preset is None else (204, *REVOCATION_PRESETS[preset].successes)

    def _read_refusal(self, refusal: Refused, response: HttpResponse, client: Client) -> Outcome:  # noqa: ARG002
        if response.status == 422:
            return Failed(reason=Reason.SERVER_ERROR, status=response.status, text=refusal.text)
        return judge(refusal, retried=response.status == 401)


def _settings_of(client: Client) -> GlobalTokenRevocationSettings:
    settings = None if client.channel is None else client.channel.settings
    assert isinstance(settings, GlobalTokenRevocationSettings)
    return settings
