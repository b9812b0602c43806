"""What is known of a delivery that did not end well: when it was seen, by whom, and where it lies. For a failed test.

It is told by the publisher, by the logs that each worker of the test has left (`tests.system.worker_process`), by the
client, and by what was found in the queues.
"""

import datetime as dt
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.system.clients import Clients
from tests.system.ledger import Account, Pair, owed_by, told_again

FILE = "account.txt"
MOST = 5  # deliveries of a kind that are told in full

Line = tuple[str, str]
"""When, as ISO 8601, and what."""


def story(
    account: Account,
    confirmed: Mapping[str, Sequence[str]],
    clients: Clients,
    resent: Collection[str],
    logs: Iterable[Path],
) -> str:
    """The account, and what is known of the first few deliveries that are lost, wrong, waiting or told again."""
    left, wrong = dict(account.left), dict(account.wrong)
    bad = {
        "LOST": account.missing,
        "WRONG": [*wrong],
        "WAITING": [*left],
        "TOLD AGAIN": sorted(told_again(owed_by(confirmed), clients)),
    }
    texts = {path.stem: path.read_text().splitlines() for path in logs}
    seen = _seen_by_workers({pair for pairs in bad.values() for pair in pairs[:MOST]}, texts)
    told = [str(account)]
    for kind, pairs in bad.items():
        for event, client in pairs[:MOST]:
            pair, again = (event, client), ", more than once" if event in resent else ""
            lines = sorted([*seen.get(pair, ()), *_seen_by_client(pair, clients)])
            told += ["", f"{kind}: event {event} for client {client}", f"  its publisher sent it{again}"]
            told += [f"  {when[11:23]} {what}" for when, what in lines] or ["  no worker and no client has seen it"]
            told += [f"  it lies in {left[pair]}"] if pair in left else []
            told += [f"  it is dead: {wrong[pair]}"] if pair in wrong else []
        told += [f"{kind}: {len(pairs) - MOST} more"] if len(pairs) > MOST else []
    return "\n".join([*told, "", *(f"{who} {lines[-1]}" for who, lines in texts.items())])


def _seen_by_client(pair: Pair, clients: Clients) -> Iterator[Line]:
    event, client = pair
    accepted = clients.accepted.get((f"/{client}", event))
    for hit in clients.at(client):
        if hit.who == event:
            when = dt.datetime.fromtimestamp(hit.at, dt.UTC).isoformat(timespec="microseconds")
            yield when, f"the client gets request {hit.nth}{', which it accepts' if hit.nth == accepted else ''}"


def _seen_by_workers(wanted: set[Pair], texts: Mapping[str, Sequence[str]]) -> dict[Pair, list[Line]]:
    """By its `sid`, or its `event_id` where a line has no more."""
    seen: dict[Pair, list[Line]] = {}
    ids: dict[str, str] = {}  # an event that came without an id has a made-up one
    parsed = [(who, line) for who, lines in texts.items() for line in map(_parsed, lines) if line]
    for _, line in parsed:
        if "sid" in line and "event_id" in line:
            ids[line["event_id"]] = line["sid"]
    for who, line in parsed:
        event = str(line.get("sid") or ids.get(line.get("event_id", ""), line.get("event_id")))
        for pair in wanted:
            if pair[0] == event and line.get("client_id", pair[1]) == pair[1]:
                seen.setdefault(pair, []).append((line["time"], f"{who}: {_said(line)}"))
    return seen


def _parsed(line: str) -> Mapping[str, Any]:
    """Empty if it is of no event, or cut off by a SIGKILL."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) and said.keys() >= {"event_id", "time", "event"} else {}


def _said(line: Mapping[str, Any]) -> str:
    """`attempt failed (503), next at …`: the line without what all lines of one delivery share."""
    match line["event"]:
        case "attempt" if line.get("next_due"):
            after = f", put off until {line['next_due'][11:23]}"
        case "deferral":
            after = f" ({line['cause']}) until {line['due'][11:23]}"
        case "dead_letter":
            after = f" ({line['reason']}): {line['error']}"
        case "event":
            after = f" taken: {line['result']}, {line['deliveries']} deliveries"
        case _:
            after = ""
    met = f" {line['attempt']} {line['outcome']} ({line['status'] or line['reason']})" if "attempt" in line else ""
    return f"{line['event'].replace('_', ' ')}{met}{after}"
