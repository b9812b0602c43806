"""Finds in the log what became of one user's logouts: for each event and client, the last that the log says.

The lines of attempts and dead letters hold the user's hash. Other lines of the same event and client join them.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

_FOLLOW = ('"dead_letter"', '"deferral"')  # lines that may say more of a delivery found before
DELIVERED, DEAD, WAITING = "delivered", "dead", "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDelivery:
    """The last that the log says of a delivery. `fate` is delivered, dead, or waiting (until `next_due`)."""

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

    Lines without JSON are skipped, and so is the text before the JSON of a line.
    """
    found: dict[tuple[str, str, str], LoggedDelivery] = {}
    for line in lines:
        if wanted in line:
            said = _read(line)
            if wanted in (said.get("sub"), said.get("sid")):
                _note(said, found)
        elif found and any(sign in line for sign in _FOLLOW):
            said = _read(line)
            known = found.get(_key(said))
            if known is not None:
                found[_key(said)] = _followed(said, known)
    return list(found.values())


def _note(said: dict[str, Any], found: dict[tuple[str, str, str], LoggedDelivery]) -> None:
    key = _key(said)
    known = found.get(key)
    if said.get("event") == "attempt":
        found[key] = _attempted(said, known)
    elif said.get("event") == "dead_letter":
        iss, event_id, client_id = key
        never = LoggedDelivery(
            time="", iss=iss, event_id=event_id, client_id=client_id, fate=DEAD, reason="", attempts=0, jti=""
        )
        found[key] = _followed(said, known or never)


def _read(line: str) -> dict[str, Any]:
    start = line.find("{")
    if start < 0:
        return {}
    try:
        read = json.loads(line[start:])
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _key(said: dict[str, Any]) -> tuple[str, str, str]:
    return str(said.get("iss")), str(said.get("event_id")), str(said.get("client_id"))


def _attempted(said: dict[str, Any], before: LoggedDelivery | None) -> LoggedDelivery:
    iss, event_id, client_id = _key(said)
    told = said.get("outcome") == "delivered"
    if before is not None and before.fate == DELIVERED and not told:
        return before  # a copy of the event: the client was told before
    due = said.get("next_due")
    return LoggedDelivery(
        time=str(said.get("time", "")),
        iss=iss,
        event_id=event_id,
        client_id=client_id,
        fate=DELIVERED if told else DEAD if due is None else WAITING,
        reason=str(said.get("reason", "")),
        attempts=(0 if before is None else before.attempts) + 1,
        jti=str(said.get("jti", "")),
        next_due=None if due is None else str(due),
        error=str(said.get("error", "")),
    )


def _followed(said: dict[str, Any], known: LoggedDelivery) -> LoggedDelivery:
    if known.fate == DELIVERED:
        return known
    time = str(said.get("time", known.time))
    error = str(said.get("error", known.error))
    match said.get("event"):
        case "dead_letter":
            return replace(known, time=time, fate=DEAD, reason=str(said.get("reason", "")), next_due=None, error=error)
        case "deferral":
            due = said.get("due")
            return replace(
                known, time=time, fate=WAITING, reason=str(said.get("cause", "")), error=error,
                next_due=None if due is None else str(due),
            )  # fmt: skip
        case _:
            return known
