"""What it costs to read an event of ten clients in a server's own words, beside one in notifier's own form.

    python -m tests.benchmarks.mapping

Microseconds of processor time, the least of many short rounds in which all forms take turns: whatever else runs on the
machine makes all of them slower, and none is measured at another time than the others.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from notifier.domain.event_document import understand
from notifier.domain.message import Lane, Message
from tests.domain.source_documents import ISS, RECORDED, recorded, source

ROUNDS, TIMES = 60, 50
NAMES = [f"client-{number}" for number in range(10)]
OWN = {"id": "e-1", "iss": ISS, "sub": "248289761001", "sid": "08A5019C", "clients": NAMES, "reason": "user_logout"}
CONTEXT = {
    "SubjectId": "248289761001", "SessionId": "08A5019C", "Issuer": ISS, "ClientIds": NAMES, "SamlSessions": [],
    "SamlInitiatingServiceProviderEntityId": None, "LogoutReason": 0, "SamlLogoutId": None,
}  # fmt: skip
OF_MASSTRANSIT = RECORDED / "duende" / "mt8.5.12-is8-masstransit-context.json"
OF_KEYCLOAK = RECORDED / "keycloak_rabbitmq" / "logout.json"
REALM = {"5f1c6b1e-3a0e-4f0e-9d43-0123456789ab": ISS}


def forms() -> Mapping[str, Callable[[], object]]:
    """What is measured, by name."""
    enveloped = json.loads(OF_MASSTRANSIT.read_text())
    in_envelope = Message(
        lane=Lane.EVENTS, tag=None, source="shop", headers=enveloped["headers"],
        body=json.dumps(enveloped["body"] | {"message": CONTEXT}).encode(), **{
            name: enveloped["properties"][name] for name in ("content_type", "message_id")
        },
    )  # fmt: skip
    objects = {"user": "alice", "session": "s", "apps": [{"id": name, "sid": f"s-{name}"} for name in NAMES]}
    mapping = {"sub": "user", "sid": "session", "clients": "apps[].{client_id: id, sid: sid}"}
    own = Message(lane=Lane.EVENTS, body=json.dumps(OWN).encode(), tag=None)
    return {
        "our own form": lambda: understand(own, max_bytes=131_072, new_id=str, now=1.0),
        "Duende": _mapped({"preset": "duende"}, _message(CONTEXT)),
        "Duende in MassTransit": _mapped({"preset": "duende"}, in_envelope),
        "Keycloak": _mapped({"preset": "keycloak_rabbitmq", "issuers": REALM}, recorded(OF_KEYCLOAK)),
        "clients as objects": _mapped({"event": mapping}, _message(objects)),
    }


def costs(rounds: int = ROUNDS) -> dict[str, float]:
    """The microseconds of each."""
    measured = forms()
    found = dict.fromkeys(measured, float("inf"))
    for _ in range(rounds):
        for name, read in measured.items():
            began = time.process_time_ns()
            for _ in range(TIMES):
                read()
            found[name] = min(found[name], (time.process_time_ns() - began) / TIMES / 1000)
    return found


def _message(body: object) -> Message:
    return Message(lane=Lane.EVENTS, body=json.dumps(body).encode(), tag=None, source="shop")


def _mapped(settings: dict[str, Any], message: Message) -> Callable[[], object]:
    by = source(**settings)
    return lambda: by.translate(by.received(message), max_bytes=131_072, new_id=str, now=1.0)


def main() -> None:
    """Print the costs."""
    found, console = costs(), Console()
    own = found["our own form"]
    for name, cost in found.items():
        console.print(f"{name:24} {cost:6.1f} µs   {cost - own:+6.1f} µs   × {cost / own:.1f}")


if __name__ == "__main__":
    main()
