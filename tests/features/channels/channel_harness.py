"""A channel with a signer that signs nothing, and clients that a file registers with a channel."""

import base64
import json
from collections.abc import Mapping
from itertools import count
from typing import Any

from notifier.delivery.ports import ChannelTools
from notifier.delivery.verdict import Dead
from notifier.features.channels.channel_settings import ChannelSettings
from notifier.features.channels.channels_feature import CHANNELS
from notifier.model.client import Algorithm, Client
from notifier.model.delivery import Delivery
from notifier.model.outcome import HttpResponse, Outcome
from notifier.model.request import PreparedRequest
from notifier.network.http.response_text import read_error_code
from tests.support.deliveries import make_delivery

ISS, URI, NOW = "https://id.example.com", "https://shop.example.com/channel", 1_750_000_000.9


class PlainSigner:
    """Return header and claims as an unsigned JWT."""

    async def sign(self, iss: str, alg: Algorithm, typ: str | None, claims: Mapping[str, object]) -> str:
        """Return them."""
        del iss
        parts = ({"alg": alg, "kid": "k1", "typ": typ}, claims)
        return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


def decode(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims."""
    header, claims = (json.loads(base64.urlsafe_b64decode(f"{part}==")) for part in token.split(".")[:2])
    return header, claims


def client(kind: str, client_id: str = "shop", pairwise: bool = False, **settings: Any) -> Client:
    """Return a client with this channel."""
    more = {"tenant": "acme"} if kind == "command" else {}
    channel = ChannelSettings.model_validate({kind: {"uri": URI, **more, **settings}}).to_channel()
    return Client(
        iss=ISS, client_id=client_id, backchannel_logout_uri=None, pairwise=pairwise, channel=channel, timeout=5.0
    )


def delivery(**changes: Any) -> Delivery:
    """Return a delivery for alice."""
    members = {"id": "d", "event_id": "e1", "id_given": True, "iss": ISS, "client_id": "shop", "sub": "alice"}
    return make_delivery(**{**members, "sid": None, "email": "alice@example.com", **changes})


class Channels:
    """The channels of the feature. `problem`: why our signatures cannot be verified."""

    def __init__(self, problem: str | None = None) -> None:
        self.jtis = count(1)
        tools = ChannelTools(
            signer=PlainSigner(),
            clock=lambda: NOW,
            new_jti=lambda: f"jti-{next(self.jtis)}",
            unverifiable=lambda _client: problem,
        )
        self._channels = {kind: make(tools) for kind, make in CHANNELS.channels.items()}

    async def prepare(self, to: Client, of: Delivery) -> PreparedRequest | Dead:
        """Return the request of one attempt."""
        return await self._channels[to.channel_kind].prepare(of, to)

    async def push(self, to: Client, of: Delivery) -> PreparedRequest:
        """Return the request of one attempt, which can be made."""
        made = await self.prepare(to, of)
        assert isinstance(made, PreparedRequest), made
        return made

    async def canary(self, to: Client, of: Delivery) -> PreparedRequest:
        """Return the request without effect."""
        made = await self._channels[to.channel_kind].prepare_canary(of, to)  # type: ignore[attr-defined]
        assert isinstance(made, PreparedRequest), made
        return made

    def read(self, of: Client, status: int, text: str = "") -> Outcome:
        """Return the outcome of a response."""
        member = {"command": "error", "security_event": "err"}.get(of.channel_kind, "")
        code = read_error_code(text.encode(), member)
        return self._channels[of.channel_kind].read(HttpResponse(status=status, text=text, code=code), of)

    def fault(self, of: Client, outcome: Outcome) -> str:
        """Return the internal fault that explains the outcome."""
        found = self._channels[of.channel_kind].internal_fault(outcome, of)
        return "" if found is None else f"{found.cause}: {found}"
