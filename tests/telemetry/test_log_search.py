"""What became of a user's logouts, by the log alone."""

import json

from notifier.telemetry.log_search import LoggedDelivery, find_deliveries

WHO = "8266657b159f3f9e"


def attempt(client_id: str, outcome: str, *, due: str | None = None, sub: str = WHO, reason: str = "timeout") -> str:
    """A line as the worker writes it."""
    return json.dumps(
        {
            "event_id": "e1", "iss": "https://i", "client_id": client_id, "attempt": 1, "jti": f"j-{client_id}",
            "outcome": outcome, "reason": "delivered" if outcome == "delivered" else reason, "next_due": due,
            "sub": sub, "event": "attempt", "level": "info", "time": "2026-11-20T08:54:49.030882Z",
        }
    )  # fmt: skip


def said(event: str, client_id: str, **more: str) -> str:
    """A line that bears no user."""
    return json.dumps({"event_id": "e1", "iss": "https://i", "client_id": client_id, "event": event, **more})


def by_client(lines: list[str]) -> dict[str, LoggedDelivery]:
    return {fate.client_id: fate for fate in find_deliveries(lines, WHO)}


def test_each_client_has_the_last_that_was_said_of_it() -> None:
    """Delivered at last, still waiting, and dead by a line that names no user."""
    found = by_client(
        [
            attempt("shop", "failed", due="2026-11-20T08:54:51.000Z"),
            attempt("mail", "failed", due="2026-11-20T08:54:51.000Z"),
            attempt("wiki", "refused", reason="refused"),
            said("dead_letter", "wiki", reason="refused", error="gone", time="2026-11-20T08:55:00Z"),
            attempt("shop", "delivered"),
            attempt("other", "delivered", sub="0000000000000000"),
        ]
    )
    assert {name: fate.fate for name, fate in found.items()} == {"shop": "delivered", "mail": "waiting", "wiki": "dead"}
    assert found["shop"].attempts == 2
    assert found["mail"].next_due == "2026-11-20T08:54:51.000Z"
    assert (found["wiki"].reason, found["wiki"].error) == ("refused", "gone")


def test_a_deferral_after_an_attempt_is_waiting_for_its_cause() -> None:
    """A fault of ours is told by its cause."""
    [fate] = find_deliveries(
        [
            attempt("shop", "failed", due="2026-11-20T08:54:51.000Z"),
            said("deferral", "shop", cause="tls_files", due="2026-11-20T09:00:00.000Z"),
        ],
        WHO,
    )
    assert (fate.fate, fate.reason, fate.next_due) == ("waiting", "tls_files", "2026-11-20T09:00:00.000Z")


def test_a_dead_letter_without_any_attempt_is_found() -> None:
    """A client that nobody knew was never tried."""
    [fate] = find_deliveries([said("dead_letter", "nobody", reason="unknown_client", sub=WHO)], WHO)
    assert (fate.fate, fate.reason, fate.attempts) == ("dead", "unknown_client", 0)


def test_who_was_told_stays_told() -> None:
    """A second copy of the event that fails changes nothing."""
    lines = [
        attempt("shop", "delivered"),
        attempt("shop", "failed", due="x"),
        said("dead_letter", "shop", reason="expired"),
    ]
    assert by_client(lines)["shop"].fate == "delivered"


def test_what_is_no_line_of_ours_is_passed_over() -> None:
    """Prefixes of a collector, broken lines, and lines that only happen to hold the hash."""
    lines = [
        f"[pod/notifier-1] {attempt('shop', 'delivered')}",
        f"not JSON {WHO}",
        f'{{"broken": "{WHO}',
        f'["{WHO}"]',
        json.dumps({"event": "attempt", "sub": "x", "error": f"of {WHO}"}),
    ]
    assert list(by_client(lines)) == ["shop"]
