"""Which response to a published event confirms it, refuses it, holds its lane, or is another server's."""

import json

import pytest
from logout_notifier_publisher.event_transport import Confirmed, FailureReason, PublishFailure, PublishOutcome, Refused
from logout_notifier_publisher.interception_tracker import InterceptionTracker
from logout_notifier_publisher.publish_response import MAX_EXCERPT_CHARACTERS, PublishResponse

ID = "event-1"
TOKEN = "to/ken+1=="
PROBLEM = {"type": "urn:notifier:problem", "title": "no"}


def outcome(status: int, body: object = "", content_type: str = "text/html", **more: object) -> PublishOutcome:
    content = body if isinstance(body, str) else json.dumps(body)
    response = PublishResponse(status=status, body=content.encode(), content_type=content_type, **more)  # type: ignore[arg-type]
    return response.to_outcome(ID, TOKEN, "https://notifier.example.com")


def problem(status: int) -> PublishOutcome:
    return outcome(status, PROBLEM, "application/problem+json", retry_after=7.0)


def test_202_with_the_id_confirms() -> None:
    """Of any content type."""
    assert outcome(202, {"id": ID, "note": "n"}) == Confirmed()


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_problem_of_notifier_refuses(status: int) -> None:
    """With its text."""
    refused = problem(status)
    assert isinstance(refused, Refused)
    assert '"title": "no"' in refused.text


@pytest.mark.parametrize(("status", "reason"), [(401, "denied"), (404, "rejected"), (503, "rejected")])
def test_other_problems_of_notifier_hold_the_lane(status: int, reason: str) -> None:
    """With the time that notifier requested."""
    held = problem(status)
    assert isinstance(held, PublishFailure)
    assert (held.reason, held.retry_after) == (reason, 0.0 if reason == "denied" else 7.0)
    assert held.concerns_others


def test_403_of_notifier_concerns_no_other_event() -> None:
    """The token or the publisher may not speak for the issuer of this event."""
    held = problem(403)
    assert isinstance(held, PublishFailure)
    assert (held.reason, held.concerns_others) == (FailureReason.DENIED, False)


@pytest.mark.parametrize("status", [408, 429, 500, 599])
def test_an_outage_holds_the_lane(status: int) -> None:
    """Whoever reports it."""
    held = outcome(status, "<p>later", retry_after=3.0)
    assert isinstance(held, PublishFailure)
    assert (held.reason, held.retry_after) == (FailureReason.REJECTED, 3.0)


@pytest.mark.parametrize("status", [200, 202, 204, 302, 400, 401, 403, 404, 413, 422])
@pytest.mark.parametrize(
    "body", ["", "[]", '{"id": "event-2"}', '{"id": "event-', '{"type": "about:blank"}', "[" * 9000]
)
def test_any_other_response_is_intercepted(status: int, body: str) -> None:
    """With status, `Server` and the beginning of the body."""
    for content_type in ("application/problem+json", "text/html"):
        found = outcome(status, body, content_type, server="ng\ninx")
        assert isinstance(found, PublishFailure)
        assert found.reason is FailureReason.INTERCEPTED
        assert f"answered {status} (Server: ng inx): {body[:MAX_EXCERPT_CHARACTERS] or 'no body'}" in found.text


@pytest.mark.parametrize("body", [f"<p>{ID}", f"{TOKEN}", "to%2Fken%2B1%3D%3D", "x" * 1000 + ID])
def test_a_page_that_repeats_the_request_is_not_quoted(body: str) -> None:
    """It would put users and secrets into the log, also escaped, and behind the part that would be quoted."""
    found = outcome(403, body)
    assert isinstance(found, PublishFailure)
    assert "a page that repeats the request" in found.text
    assert ID not in found.text


def test_a_page_cannot_forge_a_line() -> None:
    """All on one line."""
    found = outcome(403, "a\r\nb\u2028c\x1b[0m")
    assert isinstance(found, PublishFailure)
    assert "a b c [0m" in found.text


def test_deferred_events_are_probed_in_rotation() -> None:
    """From 10 to 60 s apart."""
    now = [0.0]
    tracker = InterceptionTracker(lambda: now[0])
    for name, count in (("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3)):
        assert not tracker.exhausted
        tracker.on_intercepted(name)
        assert tracker.attempt_count == count
    assert tracker.exhausted
    tracker.on_first_deferred()
    probes, waits = [], []
    for _ in range(5):
        waits.append(tracker.seconds_until_probe())
        now[0] += waits[-1]
        assert tracker.seconds_until_probe() == 0.0
        probes.append(tracker.select_probe(["b", "c"]))
    assert probes == ["b", "c", "b", "c", "b"]
    assert waits == [10.0, 20.0, 40.0, 60.0, 60.0]
