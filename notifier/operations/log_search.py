"""What became of one user's logouts, by the log: for each event and client, the last that was said of it.

The lines of attempts and dead letters bear the hash; what else was said of the same event and client is joined to them.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

_FOLLOW = ('"dead_letter"', '"deferral"')  # lines that may tell the fate of a delivery found before
DELIVERED, DEAD, WAITING = "delivered", "dead", "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """The last that is known. `fate`: delivered, dead, or waiting (for another attempt, at `next_due`)."""

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


def fates(lines: Iterable[str], wanted: str) -> list[Fate]:
    """Of the deliveries whose `sub` or `sid` is shown as `wanted`, in the order in which they were begun.

    What is no JSON is passed over, and so is what precedes it in a line.
    """
    found: dict[tuple[str, str, str], Fate] = {}
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


def _note(said: dict[str, Any], found: dict[tuple[str, str, str], Fate]) -> None:
    key = _key(said)
    known = found.get(key)
    if said.get("event") == "attempt":
        found[key] = _attempted(said, known)
    elif said.get("event") == "dead_letter":
        iss, event_id, client_id = key
        never = Fate(time="", iss=iss, event_id=event_id, client_id=client_id, fate=DEAD, reason="", attempts=0, jti="")
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


def _attempted(said: dict[str, Any], before: Fate | None) -> Fate:
    iss, event_id, client_id = _key(said)
    told = said.get("outcome") == "delivered"
    if before is not None and before.fate == DELIVERED and not told:
        return before  # a second copy of the event: the client has been told
    due = said.get("next_due")
    return Fate(
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


def _followed(said: dict[str, Any], known: Fate) -> Fate:
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
