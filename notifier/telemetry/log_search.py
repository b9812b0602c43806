"""Finds the results of one user's logouts in the log: the last entry for each event and client.

Lines of attempts and dead letters contain the user's hash. Other lines are matched by event and client.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

_RESULT_EVENTS = ('"dead_letter"', '"deferral"')  # lines that may update a delivery found before
DELIVERED, DEAD, WAITING = "delivered", "dead", "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDelivery:
    """The last log entry of a delivery. `fate` is delivered, dead, or waiting (until `next_due`)."""

    time: str
    iss: str
    event_id: str
    client_id: str
    fate: str
    reason: str
    attempts: int
    jti: str
    next_due: str | None = None
    error: str = ""


def find_deliveries(lines: Iterable[str], wanted: str) -> list[LoggedDelivery]:
    """Return the deliveries whose `sub` or `sid` is logged as `wanted`, in the order of their first lines.

    Lines without JSON are ignored, and so is text before the JSON of a line.
    """
    deliveries: dict[tuple[str, str, str], LoggedDelivery] = {}
    for line in lines:
        if wanted in line:
            members = _parse_line(line)
            if wanted in (members.get("sub"), members.get("sid")):
                _add_line(members, deliveries)
        elif deliveries and any(sign in line for sign in _RESULT_EVENTS):
            members = _parse_line(line)
            known = deliveries.get(_key_of(members))
            if known is not None:
                deliveries[_key_of(members)] = _update(members, known)
    return list(deliveries.values())


def _add_line(members: dict[str, Any], deliveries: dict[tuple[str, str, str], LoggedDelivery]) -> None:
    key = _key_of(members)
    known = deliveries.get(key)
    if members.get("event") == "attempt":
        deliveries[key] = _from_attempt(members, known)
    elif members.get("event") == "dead_letter":
        iss, event_id, client_id = key
        never = LoggedDelivery(
            time="", iss=iss, event_id=event_id, client_id=client_id, fate=DEAD, reason="", attempts=0, jti=""
        )
        deliveries[key] = _update(members, known or never)


def _parse_line(line: str) -> dict[str, Any]:
    start = line.find("{")
    if start < 0:
        return {}
    try:
        read = json.loads(line[start:])
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _key_of(members: dict[str, Any]) -> tuple[str, str, str]:
    return str(members.get("iss")), str(members.get("event_id")), str(members.get("client_id"))


def _from_attempt(members: dict[str, Any], before: LoggedDelivery | None) -> LoggedDelivery:
    iss, event_id, client_id = _key_of(members)
    delivered = members.get("outcome") == "delivered"
    if before is not None and before.fate == DELIVERED and not delivered:
        return before  # a copy of the event, after the client was notified
    due = members.get("next_due")
    return LoggedDelivery(
        time=str(members.get("time", "")),
        iss=iss,
        event_id=event_id,
        client_id=client_id,
        fate=DELIVERED if delivered else DEAD if due is None else WAITING,
        reason=str(members.get("reason", "")),
        attempts=(0 if before is None else before.attempts) + 1,
        jti=str(members.get("jti", "")),
        next_due=None if due is None else str(due),
        error=str(members.get("error", "")),
    )


def _update(members: dict[str, Any], known: LoggedDelivery) -> LoggedDelivery:
    if known.fate == DELIVERED:
        return known
    time = str(members.get("time", known.time))
    error = str(members.get("error", known.error))
    match members.get("event"):
        case "dead_letter":
            return replace(
                known, time=time, fate=DEAD, reason=str(members.get("reason", "")), next_due=None, error=error
            )
        case "deferral":
            due = members.get("due")
            return replace(
                known, time=time, fate=WAITING, reason=str(members.get("cause", "")), error=error,
                next_due=None if due is None else str(due),
            )  # fmt: skip
        case _:
            return known
