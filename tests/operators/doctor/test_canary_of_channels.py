"""A canary is sent by the client's own channel."""

from dataclasses import replace
from typing import Any

import pytest

from notifier.delivery.verdict import Dead
from notifier.model.client import Client
from notifier.model.client_channel import ClientChannel
from notifier.model.delivery import Delivery
from notifier.model.outcome import DeadReason, HttpResponse, Outcome, TransportFailure, TransportResult, to_outcome
from notifier.model.record import copy_record
from notifier.model.request import PreparedRequest, Request, RequestExtras
from notifier.operators.doctor.canary import CanaryTools, send_canary
from notifier.operators.doctor.doctor import Finding, Severity
from tests.delivery.test_operator_pauses import pause

CHANNEL = ClientChannel(kind="pigeon", uri="https://x.example.com/pigeon", member="notifier.channel.pigeon.uri")


class Pigeon:
    """A channel that sends the names of the user and session."""

    deliveries: list[Delivery]

    def __init__(self) -> None:
        self.deliveries = []

    async def prepare(self, delivery: Delivery, client: Client) -> PreparedRequest | Dead:
        """Return the request."""
        del client
        self.deliveries.append(delivery)
        extras = RequestExtras(headers=(("Content-Type", "text/coo"),), authorization="Bearer x")
        return PreparedRequest(jti="j", body=b"coo", secret="", extras=extras)

    def read(self, answer: HttpResponse | TransportFailure, client: Client) -> Outcome:
        """Return the outcome."""
        return to_outcome(answer, client.response, 0.0)

    def internal_fault(self, outcome: Outcome, client: Client) -> None:
        """Return None."""


class WingedPigeon(Pigeon):
    """A channel with a request without effect."""

    async def prepare_canary(self, delivery: Delivery, client: Client) -> PreparedRequest | Dead:
        """Return Dead."""
        del delivery, client
        return Dead(reason=DeadReason.NO_SUB, text="it flew away")


class Transport:
    """Records the requests."""

    def __init__(self, status: int = 204) -> None:
        self.status = status
        self.requests: list[Request] = []

    async def post(self, request: Request) -> TransportResult:
        """HttpResponse."""
        self.requests.append(request)
        return HttpResponse(status=self.status)


async def send(channel: Pigeon, transport: Transport, *, risk_accepted: bool = False, **changes: Any) -> Finding:
    """Send a canary, and return the finding."""
    client = Client(
        iss="https://id.example", client_id="shop", backchannel_logout_uri=None, channel=replace(CHANNEL, **changes)
    )
    tools = CanaryTools(
        channels={"pigeon": channel}, transport=transport, new_id=lambda: "f00d", risk_accepted=risk_accepted
    )
    [finding] = await send_canary(client, tools)
    return finding


async def test_canary_by_another_channel() -> None:
    """Its request has the address, content type and credentials of the channel. Advice names the channel's setting."""
    channel, transport = Pigeon(), Transport()
    assert (await send(channel, transport)).level is Severity.OK
    [request] = transport.requests
    assert (request.uri, request.extras.authorization) == (CHANNEL.uri, "Bearer x")
    assert request.extras.headers == (("Content-Type", "text/coo"),)
    assert channel.deliveries[0].email == "notifier-canary-f00d@canary.invalid"
    assert "notifier.channel.pigeon.uri" in (await send(channel, Transport(404))).advice


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_advice_after_a_refusal_names_the_settings_of_the_channel(status: int) -> None:
    """A preset of logout tokens does not concern it."""
    finding = await send(Pigeon(), Transport(status))
    assert "notifier.channel.pigeon," in finding.advice
    assert "preset" not in finding.advice


async def test_canary_never_names_one_session_to_a_channel_that_ends_all() -> None:
    """Such a channel would send nothing."""
    channel = Pigeon()
    await send(channel, Transport(), ends_all=True)
    assert channel.deliveries[0].sid is None


async def test_risky_canary_needs_consent() -> None:
    """It is not sent, and the finding has the reason and the command."""
    channel, transport = Pigeon(), Transport()
    finding = await send(channel, transport, canary_risk="it may bite")
    assert (finding.level, finding.text) == (Severity.WARNING, "nothing was sent: it may bite")
    assert "--yes" in finding.advice
    assert not transport.requests
    assert (await send(channel, transport, canary_risk="it may bite", risk_accepted=True)).level is Severity.OK


async def test_channel_has_another_request_for_canaries() -> None:
    """It is used; if it cannot be made, the finding has the reason."""
    transport = Transport()
    finding = await send(WingedPigeon(), transport)
    assert (finding.level, finding.text) == (Severity.FAILED, "nothing can be sent: it flew away")
    assert not transport.requests


async def test_canary_of_a_paused_client_is_sent() -> None:
    """Its answer names the pause, since the client's logouts wait nevertheless."""
    channel, transport = Pigeon(), Transport()
    client = Client(iss="https://id.example", client_id="shop", backchannel_logout_uri=None, channel=CHANNEL)
    tools = CanaryTools(
        channels={"pigeon": channel}, transport=transport, new_id=lambda: "f00d",
        pauses=lambda: {client.key: copy_record(pause(), iss=client.iss)},
    )  # fmt: skip
    answer, found = await send_canary(client, tools)
    assert (len(transport.requests), answer.level, found.text.startswith("is paused by alice")) == (
        1,
        Severity.OK,
        True,
    )
