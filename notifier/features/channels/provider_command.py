"""Notifies a client by OpenID Provider Commands (draft 02): a command token in a form, which invalidates an account.

409 with `incompatible_state` means that the account is not active there, so nothing can end; a 409 without it is final.
A 400 is retried a few times if it has no error code or `invalid_request`: a receiver that cannot read the JWK Set
answers so. An unsupported command is final.
"""

from notifier.delivery.verdict import Dead
from notifier.features.channels.channel_settings import CommandSettings
from notifier.features.channels.signed_channel import FORMATS, SignedChannel, judge
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.outcome import Delivered, HttpResponse, Outcome, Refused
from notifier.model.request import PreparedRequest, RequestExtras

TYPE = "command+jwt"
LIFETIME_SECONDS = 120


class ProviderCommand(SignedChannel):
    """Makes command tokens, and reads the responses of receivers. Satisfies `Channel`."""

    successes = (200, 204)

    async def prepare(self, delivery: Delivery, client: Client) -> PreparedRequest | Dead:
        """Return a request with a new command `invalidate`; Dead if the event does not name the user."""
        subject = self._subject(FORMATS["iss_sub"], delivery, client)
        if isinstance(subject, Dead):
            return subject
        return await self._push(delivery, client, {"command": "invalidate", "sub": subject["sub"]})

    async def prepare_canary(self, delivery: Delivery, client: Client) -> PreparedRequest | Dead:
        """Return a request with the command `metadata`, which concerns no account (draft 02, Tenant Commands)."""
        return await self._push(delivery, client, {"command": "metadata", "metadata": {}})

    async def _push(self, delivery: Delivery, client: Client, command: dict[str, object]) -> PreparedRequest:
        settings = None if client.channel is None else client.channel.settings
        assert isinstance(settings, CommandSettings)
        issued_at = self._issued_at()
        claims: dict[str, object] = {
            "iss": delivery.iss,
            "aud": settings.uri,
            "client_id": client.issued_id,
            "iat": issued_at,
            "exp": issued_at + LIFETIME_SECONDS,
            "tenant": settings.tenant,
            **command,
        }
        token, jti = await self._sign(delivery, client, TYPE, claims)
        extras = RequestExtras(error_member="error")
        return PreparedRequest(jti=jti, body=b"command_token=" + token.encode(), secret=token, extras=extras)

    def _read_refusal(self, refusal: Refused, response: HttpResponse, client: Client) -> Outcome:  # noqa: ARG002
        if response.status == 409 and response.code == "incompatible_state":
            return Delivered(status=response.status, text=refusal.text)
        return judge(refusal, retried=response.status == 400 and response.code in (None, "invalid_request"))
