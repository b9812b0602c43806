"""Tells clients of a logout by OpenID Connect Back-Channel Logout 1.0: a signed logout token in a form, by POST.

A client that is registered for encrypted tokens gets the signed one in a JWE, and never in clear (B16). A token is made
for one POST. It is neither stored nor logged (R2).
"""

from collections.abc import Callable

from notifier.delivery.logout_token import carries_sid, claims_for
from notifier.delivery.ports import Encrypter, Push, Signer
from notifier.delivery.verdict import Dead
from notifier.model.client import Client, Encryption
from notifier.model.delivery import Delivery
from notifier.model.errors import OurFault
from notifier.model.frozen import replace
from notifier.model.moment import Clock
from notifier.model.outcome import Answer, Break, Cause, DeadReason, Delivered, Outcome, Reason, read_wire
from notifier.model.presets import meaning_of

_NO_TOKEN = {
    DeadReason.NO_SID: "the client must have `sid`, and the event has none",
    DeadReason.NO_SUB: "the client must have `sub`, and the event has none for it",
}


def _nothing_known(_client: Client) -> str | None:
    return None


class NoEncrypter:
    """Encrypts nothing: deliveries to clients with encrypted tokens wait. Satisfies `Encrypter`."""

    async def encrypt(self, client: Client, encryption: Encryption, token: str) -> str:  # noqa: ARG002
        """Raise OurFault(cause=encryption)."""
        raise OurFault(Cause.ENCRYPTION, "nothing here encrypts tokens")

    def doubted(self, encryption: Encryption) -> str | None:  # noqa: ARG002
        """Return None."""
        return None


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
        unverifiable: Callable[[Client], str | None] = _nothing_known,
        encrypter: Encrypter | None = None,
    ) -> None:
        self._signer = signer
        self._clock = clock
        self._new_jti = new_jti
        self._unverifiable = unverifiable
        self._encrypter = NoEncrypter() if encrypter is None else encrypter

    def of(self, client: Client) -> "BackChannel":  # noqa: ARG002
        """Return this channel, which serves all clients."""
        return self

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
        doubt = None if client.encryption is None else self._encrypter.doubted(client.encryption)
        return None if doubt is None else OurFault(Cause.ENCRYPTION, doubt)
