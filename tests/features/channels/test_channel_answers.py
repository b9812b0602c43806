"""How each channel reads the answers of receivers."""

from dataclasses import replace
from typing import Any

import pytest

from notifier.model.client import ResponsePolicy
from notifier.model.outcome import Delivered, Failed, Outcome, Reason
from tests.features.channels.channel_harness import Channels, client

REVOCATION, COMMAND, EVENT = "global_token_revocation", "command", "security_event"
DELIVERED, RETRIED, REJECTED, REFUSED = Reason.DELIVERED, Reason.SERVER_ERROR, Reason.REJECTED_TOKEN, Reason.REFUSED
ANSWERS: list[tuple[str, int, str, Reason]] = [
    (REVOCATION, 204, "", DELIVERED),
    (REVOCATION, 200, "", REFUSED),
    (REVOCATION, 202, "", REFUSED),
    (REVOCATION, 400, "", REFUSED),
    (REVOCATION, 401, "", REJECTED),
    (REVOCATION, 403, "", REFUSED),
    (REVOCATION, 404, "", REFUSED),
    (REVOCATION, 408, "", RETRIED),
    (REVOCATION, 422, "", RETRIED),
    (REVOCATION, 425, "", RETRIED),
    (REVOCATION, 429, "", Reason.THROTTLED),
    (REVOCATION, 500, "", RETRIED),
    (REVOCATION, 302, "", Reason.REDIRECT),
    (COMMAND, 200, '{"account_state": "active"}', DELIVERED),
    (COMMAND, 204, "", DELIVERED),
    (COMMAND, 202, "", REFUSED),
    (COMMAND, 400, '{"error": "invalid_request"}', REJECTED),
    (COMMAND, 400, "", REJECTED),
    (COMMAND, 400, '{"error": "unsupported_command"}', REFUSED),
    (COMMAND, 400, '{"error": "other"}', REFUSED),
    (COMMAND, 401, '{"error": "unrecognized_provider"}', REFUSED),
    (COMMAND, 409, '{"error": "incompatible_state", "account_state": "unknown"}', DELIVERED),
    (COMMAND, 409, "", REFUSED),
    (COMMAND, 409, "<html>conflict</html>", REFUSED),
    (COMMAND, 409, '["incompatible_state"]', REFUSED),
    (COMMAND, 409, '{"error": "other"}', REFUSED),
    (COMMAND, 404, "", REFUSED),
    (COMMAND, 503, "", RETRIED),
    (EVENT, 202, "", DELIVERED),
    (EVENT, 200, "<html>sign in</html>", REFUSED),
    (EVENT, 204, "", REFUSED),
    (EVENT, 400, "", REJECTED),
    (EVENT, 400, "<html>", REJECTED),
    (EVENT, 400, '{"err": "invalid_request"}', REJECTED),
    (EVENT, 400, '{"err": "invalid_key", "description": "no such key', REJECTED),
    (EVENT, 400, '{"err": "invalid_issuer"}', REFUSED),
    (EVENT, 400, '{"err": "invalid_audience"}', REFUSED),
    (EVENT, 400, '{"err": "authentication_failed"}', REFUSED),
    (EVENT, 400, '{"err": "access_denied"}', REFUSED),
    (EVENT, 400, '{"err": "invalid_state"}', REFUSED),
    (EVENT, 401, "", REFUSED),
    (EVENT, 500, "", RETRIED),
]


@pytest.mark.parametrize(("kind", "status", "text", "reason"), ANSWERS)
def test_answers(kind: str, status: int, text: str, reason: Reason) -> None:
    """By status, and by the error code where the specification has one."""
    outcome = Channels().read(client(kind), status, text)
    assert (outcome.reason, outcome.status) == (reason, status)


@pytest.mark.parametrize("kind", [REVOCATION, COMMAND, EVENT])
@pytest.mark.parametrize("status", [200, 202, 204, 400, 401, 404, 409, 422])
def test_the_clients_own_statuses_come_first(kind: str, status: int) -> None:
    """`success_statuses` and `retry_statuses`."""
    done, again = (
        ResponsePolicy(success_statuses=frozenset({status})),
        ResponsePolicy(retry_statuses=frozenset({status})),
    )
    assert isinstance(read(kind, status, done), Delivered)
    assert isinstance(read(kind, status, again), Failed)


def read(kind: str, status: int, response: ResponsePolicy, **settings: Any) -> Outcome:
    """Return the outcome at a client with such statuses."""
    return Channels().read(replace(client(kind, **settings), response=response), status)


def test_other_success_says_what_to_do() -> None:
    """A sign-in page must not count as a revocation."""
    outcome = Channels().read(client(REVOCATION), 200, "Welcome")
    assert outcome.text == "it means no success here; if it does, add 200 to success_statuses; its answer: Welcome"
    assert isinstance(Channels().read(client(REVOCATION, preset="auth0"), 200), Delivered)


@pytest.mark.parametrize("kind", [REVOCATION, COMMAND, EVENT])
def test_unpublished_key_explains_a_rejection(kind: str) -> None:
    """Then the deliveries wait, as with logout tokens. Without a signature of ours it explains nothing."""
    channels, to = Channels("the key k2 is not published"), client(kind)
    rejected = channels.read(to, 401 if kind == REVOCATION else 400)
    assert channels.fault(to, rejected) == "signing: the key k2 is not published"
    assert not channels.fault(to, channels.read(to, 404))
    assert not Channels().fault(to, rejected)
    unsigned = client(REVOCATION, proof="headers")
    assert not channels.fault(unsigned, channels.read(unsigned, 401))
