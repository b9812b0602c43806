"""The channel of clients that the worker itself calls at their front-channel URI."""

from typing import Any

import pytest

from notifier.delivery.admission import verdict_without_attempt
from notifier.delivery.channels import FrontChannel
from notifier.delivery.facts import Skipped
from notifier.delivery.verdict import Dead, Defer
from notifier.messages.event_clients import count_notices, split_event
from notifier.messages.message_planner import make_deliveries
from notifier.model.client import Client, FrontChannelClient, FrontChannelWay, ResponsePolicy
from notifier.model.delivery import Delivery
from notifier.model.outcome import (
    DeadReason,
    Delivered,
    Failed,
    HttpResponse,
    Outcome,
    Reason,
    Refused,
    TransportFailure,
)
from notifier.model.registry import Registry
from notifier.model.request import PreparedRequest
from notifier.model.session_ended import SessionEnded

ISS = "https://login.example.com/realms/a"
URI = "https://shop.example.net/out?tenant=a%2Fb"
CHANNEL = FrontChannel(lambda: 1000.0)


def client(way: FrontChannelWay = FrontChannelWay.SERVER, **more: Any) -> Client:
    reported = FrontChannelClient(frontchannel_logout_uri=URI, way=way)
    return Client(
        **{"iss": ISS, "client_id": "shop", "backchannel_logout_uri": None, "front_channel": reported, **more}
    )


def event(clients: Any, sid: str | None = "s 1") -> SessionEnded:
    return SessionEnded(id="e-1", id_given=True, iss=ISS, sub="ann", sid=sid, clients=clients)


def delivery(of: Client, sid: str | None = "s 1") -> Delivery:
    [found] = make_deliveries(event(("shop",), sid), Registry(clients={ISS: {"shop": of}}), 0.0)
    assert isinstance(found, Delivery)
    return found


async def test_the_uri_gets_iss_and_sid_and_no_token_is_made() -> None:
    """F4. Its query is kept byte for byte. There is no body, so the method is GET."""
    push = await CHANNEL.prepare(delivery(client()), client())
    uri = f"{URI}&iss=https%3A%2F%2Flogin.example.com%2Frealms%2Fa&sid=s+1"
    assert push == PreparedRequest(jti="", body=None, secret="s 1", uri=uri)
    assert client().logout_uri == URI


async def test_front_channel_without_sid_is_skipped() -> None:
    """The worker's request has no user cookie, so iss alone does not identify a session."""
    reported = delivery(client(), sid=None)
    dead = await CHANNEL.prepare(reported, client())
    assert isinstance(dead, Dead)
    assert dead.reason is DeadReason.NO_SID


@pytest.mark.parametrize(
    ("answer", "own", "outcome", "reason"),
    [
        (HttpResponse(status=200), (), Delivered, Reason.DELIVERED),
        (HttpResponse(status=204), (), Delivered, Reason.DELIVERED),
        (HttpResponse(status=302), (), Refused, Reason.REDIRECT),
        (HttpResponse(status=302), (302,), Delivered, Reason.DELIVERED),
        (HttpResponse(status=400), (), Refused, Reason.REFUSED),
        (HttpResponse(status=404), (), Refused, Reason.REFUSED),
        (HttpResponse(status=503, retry_after="7"), (), Failed, Reason.SERVER_ERROR),
        (TransportFailure(reason=Reason.TIMEOUT, ambiguous=True, text=""), (), Failed, Reason.TIMEOUT),
    ],
)
def test_front_channel_answer_is_never_a_rejected_token(
    answer: HttpResponse | TransportFailure, own: tuple[int, ...], outcome: type[Outcome], reason: Reason
) -> None:
    """A redirect counts as success only if `success_statuses` of the client includes it: it may lead to the login."""
    read = CHANNEL.read(answer, client(response=ResponsePolicy(success_statuses=frozenset(own))))
    assert (type(read), read.reason) == (outcome, reason)
    assert CHANNEL.internal_fault(read, client()) is None


def test_web_page_is_the_usual_answer_of_a_front_channel() -> None:
    """The URI is for browsers, so the client is not named."""
    read = CHANNEL.read(HttpResponse(status=200, text="<p>Signed out", is_web_page=True), client())
    assert read == Delivered(status=200, text="<p>Signed out")


@pytest.mark.parametrize(
    ("subject", "told_at"),
    [
        (client(), URI),
        (client(FrontChannelWay.BROWSER), None),
        (client(front_channel=None), None),
        (client(backchannel_logout_uri="https://shop.example.net/bc"), "https://shop.example.net/bc"),
        (client(FrontChannelWay.BROWSER, backchannel_logout_uri="https://a.example/bc"), "https://a.example/bc"),
    ],
)
def test_client_without_a_usable_channel_is_skipped(subject: Client, told_at: str | None) -> None:
    """The same in a plan by name, by `"*"`, and in the count of fates. An existing delivery waits."""
    by = Registry(clients={ISS: {"shop": subject}})
    assert subject.logout_uri == told_at
    [step] = make_deliveries(event(("shop",)), by, 0.0)
    assert isinstance(step, Skipped) is (told_at is None)
    assert len(list(split_event(event("*"), by, 0.0))) == count_notices(event("*"), by, 0.0) == (told_at is not None)
    reported = delivery(client())
    verdict = verdict_without_attempt(reported, subject, subject, by, reported.ended_at or 0.0)
    assert isinstance(verdict, Defer) is (told_at is None)
