"""Tells clients of a logout by OpenID Connect Front-Channel Logout 1.0 without a browser: a GET with `iss` and `sid`.

It serves clients that need no more than `iss` and `sid`, since the request has no cookie of the user's. The answer is
read like one to a logout token: 2xx is success. Some endpoints end with a redirect; `success_statuses` may list that
status.
"""

from notifier.delivery.ports import Channel, Push
from notifier.delivery.verdict import Dead
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.errors import OurFault
from notifier.model.front_channel import uri_of
from notifier.model.frozen import replace
from notifier.model.moment import Clock
from notifier.model.outcome import Answer, Break, DeadReason, Outcome, Reason, Refused, read_wire

_NO_SID = "the client is told by iss and sid alone (front_channel: server), and the event has no sid"


class FrontChannel:
    """Makes the address that is called. Satisfies `Channel`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def of(self, client: Client) -> "FrontChannel":  # noqa: ARG002
        """Return this channel, which serves all clients."""
        return self

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


class ClientChannels:
    """Tells each client by its channel. Satisfies `Channel`."""

    def __init__(self, back: Channel, front: Channel) -> None:
        self._back = back
        self._front = front

    def of(self, client: Client) -> Channel:
        """Return the client's channel."""
        return self._front if client.backchannel_logout_uri is None else self._back

    def uri(self, client: Client) -> str:
        """See `Channel`."""
        return self.of(client).uri(client)

    def names_session(self, delivery: Delivery, client: Client) -> bool:
        """See `Channel`."""
        return self.of(client).names_session(delivery, client)

    async def prepare(self, delivery: Delivery, client: Client) -> Push | Dead:
        """See `Channel`."""
        return await self.of(client).prepare(delivery, client)

    def read(self, answer: Answer | Break, client: Client) -> Outcome:
        """See `Channel`."""
        return self.of(client).read(answer, client)

    def our_fault(self, outcome: Outcome, client: Client) -> OurFault | None:
        """See `Channel`."""
        return self.of(client).our_fault(outcome, client)
