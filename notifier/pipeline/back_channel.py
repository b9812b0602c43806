"""Tells clients of a logout by OpenID Connect Back-Channel Logout 1.0: a signed logout token in a form, by POST.

A token is made for one POST. It is neither stored nor logged (R2).
"""

from collections.abc import Callable

from notifier.domain.client import Client
from notifier.domain.delivery import Delivery
from notifier.domain.errors import OurFault
from notifier.domain.logout_token import carries_sid, claims_for
from notifier.domain.outcome import Answer, Break, Cause, DeadReason, Outcome, Reason, read_wire
from notifier.domain.verdict import Dead
from notifier.pipeline.ports import Clock, Push, Signer

_NO_TOKEN = {
    DeadReason.NO_SID: "the client must have `sid`, and the event has none",
    DeadReason.NO_SUB: "the client must have a `sub` of its own, and the event has none for it",
}


def _nothing_known(_client: Client) -> str | None:
    return None


class BackChannel:
    """Makes logout tokens and reads what clients answer to them. Satisfies `Channel`.

    `new_jti` never gives the same id twice. `unverifiable` says why the client cannot verify what is signed for it, or
    None if nothing is known against it. It is asked only after a 400.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        clock: Clock,
        new_jti: Callable[[], str],
        unverifiable: Callable[[Client], str | None] = _nothing_known,
    ) -> None:
        self._signer = signer
        self._clock = clock
        self._new_jti = new_jti
        self._unverifiable = unverifiable

    def uri(self, client: Client) -> str:
        """Return the client's `backchannel_logout_uri`."""
        return client.backchannel_logout_uri or ""

    def names_session(self, delivery: Delivery, client: Client) -> bool:
        """Return True if the token has a `sid`."""
        return carries_sid(delivery, client)

    async def prepare(self, delivery: Delivery, client: Client) -> Push | Dead:
        """Sign a new token. Raises OurFault if it cannot be signed now."""
        jti = self._new_jti()
        claims = claims_for(delivery, client, now=self._clock(), jti=jti)
        if isinstance(claims, DeadReason):
            return Dead(reason=claims, text=_NO_TOKEN[claims])
        token = await self._signer.sign(delivery.iss, client.token.alg, client.token.typ, claims)
        # A JWS has base64url and dots only, so nothing in it needs an escape.
        return Push(jti=jti, body=b"logout_token=" + token.encode(), secret=token)

    def read(self, answer: Answer | Break, client: Client) -> Outcome:
        """Read the client's answer by its response policy."""
        return read_wire(answer, client.response, self._clock())

    def our_fault(self, outcome: Outcome, client: Client) -> OurFault | None:
        """Blame ourselves for a rejected token that the client must reject: its key is not published, or too new."""
        if outcome.reason is not Reason.REJECTED_TOKEN:
            return None
        why = self._unverifiable(client)
        return None if why is None else OurFault(Cause.SIGNING, why)
