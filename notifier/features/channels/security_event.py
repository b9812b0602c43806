"""Notifies a client by a security event token that is pushed (RFC 8417, RFC 8935): CAEP's `session-revoked`.

Such a token has no `sub` and no `exp`, so that no service accepts it as another kind of token. The session that ended
is named in a complex subject. `txn` is the same in each attempt, and `jti` is not: a receiver that has noted the `jti`
of a failed attempt would drop the next one.

A response 400 has an error code in `err` (RFC 8935 §2.4). Without a code, or with a code that a new key or an unread
JWK Set explains, it is retried a few times (R12). Any other is final.
"""

import math

from notifier.delivery.verdict import Dead
from notifier.features.channels.channel_settings import SecurityEventSettings
from notifier.features.channels.signed_channel import SignedChannel, judge
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.outcome import HttpResponse, Outcome, Refused
from notifier.model.request import PreparedRequest, RequestExtras

TYPE = "secevent+jwt"
SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
_HEADERS = (("Content-Type", "application/secevent+jwt"), ("Accept", "application/json"))
_RETRIED_CODES = (None, "invalid_key", "invalid_request")


class SecurityEvent(SignedChannel):
    """Makes security event tokens, and reads the responses of receivers. Satisfies `Channel`."""

    successes = (202,)

    async def prepare(self, delivery: Delivery, client: Client) -> PreparedRequest | Dead:
        """Return a request with a new signed token; Dead if the event does not name the user as the client needs."""
        settings = _settings_of(client)
        user = self._subject(settings.subject, delivery, client)
        if isinstance(user, Dead):
            return user
        subject = user
        if settings.session and delivery.sid is not None:
            subject = {"format": "complex", "user": user, "session": {"format": "opaque", "id": delivery.sid}}
        ended_at = delivery.ended_at or delivery.progress.first_taken_at or self._tools.clock()
        event: dict[str, object] = {"event_timestamp": math.floor(ended_at)}
        if settings.subject_in_event:
            event["subject"] = subject
        if delivery.reason is not None:
            event["reason_admin"] = {"en": delivery.reason}
        return await self._push(delivery, client, subject, {SESSION_REVOKED: event})

    async def prepare_canary(self, delivery: Delivery, client: Client) -> PreparedRequest | Dead:
        """Return the verification event of the client's stream (SSF 1.0 §8.1.4); without a stream, a usual request."""
        settings = _settings_of(client)
        if settings.stream_id is None:
            return await self.prepare(delivery, client)
        subject: dict[str, object] = {"format": "opaque", "id": settings.stream_id}
        return await self._push(delivery, client, subject, {VERIFICATION: {}})

    async def _push(
        self, delivery: Delivery, client: Client, subject: dict[str, object], events: dict[str, object]
    ) -> PreparedRequest:
        settings = _settings_of(client)
        audience = settings.audience or (settings.uri,)
        claims: dict[str, object] = {
            "iss": delivery.iss,
            "aud": list(audience) if len(audience) > 1 else audience[0],
            "iat": self._issued_at(),
            "txn": delivery.event_id,
            "sub_id": subject,
            "events": events,
        }
        token, jti = await self._sign(delivery, client, TYPE, claims)
        extras = RequestExtras(headers=_HEADERS, error_member="err")
        return PreparedRequest(jti=jti, body=token.encode(), secret=token, extras=extras)

    def _read_refusal(self, refusal: Refused, response: HttpResponse, client: Client) -> Outcome:  # noqa: ARG002
        return judge(refusal, retried=response.status == 400 and response.code in _RETRIED_CODES)


def _settings_of(client: Client) -> SecurityEventSettings:
    settings = None if client.channel is None else client.channel.settings
    assert isinstance(settings, SecurityEventSettings)
    return settings
