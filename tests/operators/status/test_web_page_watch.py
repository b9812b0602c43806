"""A client that answers a logout with a web page is named until it answers otherwise."""

import pytest
from structlog.testing import capture_logs

from notifier.delivery.facts import Attempted, LogoutDelivered
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.outcome import Delivered, Failed, Outcome, Reason, Refused
from notifier.model.registry import Registry
from notifier.model.trouble import TroubleKind
from notifier.operators.status.web_page_watch import MAX_CLIENTS, WebPageWatch

ISS = "https://id.example.com"
PAGE = Delivered(status=200, is_web_page=True)
OK = Delivered(status=204)


class Harness:
    """The watch, its clock, and a registry with the client `shop`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.last_activity = 0.0
        shop = Client(iss=ISS, client_id="shop", backchannel_logout_uri="https://shop.example.com/out")
        self.registry = Registry(clients={ISS: {"shop": shop}})
        self.watch = WebPageWatch(lambda: self.registry, lambda _: self.last_activity, lambda: self.now)

    def answer(self, outcome: Outcome, client_id: str = "shop") -> int:
        """Observe an attempt. Return the number of lines in the log."""
        delivery = Delivery(id="d", id_given=True, event_id="e", iss=ISS, client_id=client_id, sub="u", sid="s")
        members = {"delivery": delivery, "number": 1, "jti": "j", "alg": "RS256", "outcome": outcome, "seconds": 0.1}
        accepted = isinstance(outcome, Delivered)
        fact = LogoutDelivered(**members, at=0, propagation=None) if accepted else Attempted(**members, at=0)  # type: ignore[arg-type]
        with capture_logs() as lines:
            self.watch.on_attempt(fact)
        return len(lines)

    def named(self) -> dict[str, float | None]:
        """Return the clients of the troubles, and since when."""
        troubles = list(self.watch.troubles())
        assert all(trouble.kind is TroubleKind.WEB_PAGE and trouble.mild for trouble in troubles)
        return {trouble.client_id: trouble.since for trouble in troubles}


def test_client_is_named_until_it_answers_otherwise() -> None:
    """The log names it once, also if it answers with a page again."""
    harness = Harness()
    assert (harness.answer(OK), harness.named()) == (0, {})
    assert (harness.answer(PAGE), harness.named()) == (1, {"shop": 1000.0})
    harness.now += 1
    assert (harness.answer(PAGE), harness.named()) == (0, {"shop": 1000.0})
    assert (harness.answer(OK), harness.named()) == (0, {})
    assert (harness.answer(PAGE), harness.named()) == (0, {"shop": 1001.0})


@pytest.mark.parametrize(
    ("outcome", "ends"),
    [
        (Refused(reason=Reason.REFUSED, status=404), True),
        (Failed(reason=Reason.SERVER_ERROR, status=503), True),
        (Failed(reason=Reason.TIMEOUT), False),
        (Failed(reason=Reason.INTERCEPTED, status=202), False),
    ],
)
def test_only_an_answer_ends_it(outcome: Outcome, *, ends: bool) -> None:
    """No answer, and the answer of a firewall, show nothing."""
    harness = Harness()
    harness.answer(PAGE)
    harness.answer(outcome)
    assert harness.named() == ({} if ends else {"shop": 1000.0})


def test_a_client_that_is_gone_is_not_named() -> None:
    """An unregistered client is named while it had a result within the hour."""
    harness = Harness()
    harness.answer(PAGE)
    harness.registry, harness.last_activity = Registry(), 900.0
    assert harness.named()
    harness.last_activity = 0.0
    assert not harness.named()


def test_a_hundred_clients_are_named() -> None:
    """The place of a client that answers otherwise, or is gone, is free for another one."""
    harness = Harness()
    harness.last_activity = 900.0
    lines = [harness.answer(PAGE, f"c{number}") for number in range(MAX_CLIENTS + 1)]
    assert (sum(lines), len(harness.named())) == (MAX_CLIENTS, MAX_CLIENTS)
    harness.answer(OK, "c7")
    assert (harness.answer(PAGE, "last"), "last" in harness.named()) == (1, True)


def test_registered_clients_take_the_places_of_others() -> None:
    """Whoever publishes events with a hundred addresses hides no registered client."""
    harness = Harness()
    harness.last_activity = 900.0
    for number in range(MAX_CLIENTS):
        harness.answer(PAGE, f"c{number}")
    assert (harness.answer(PAGE), "shop" in harness.named()) == (1, True)
    assert (harness.answer(PAGE, "c0"), harness.answer(PAGE), len(harness.named())) == (0, 0, MAX_CLIENTS)
