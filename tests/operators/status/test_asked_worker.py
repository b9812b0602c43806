"""`notifier status --from`: what one worker's API knows is shown as the command shows it otherwise."""

import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from pydantic import ValidationError

from notifier.configuration.clients.client_rows import SourceState
from notifier.delivery.facts import DeadLettered
from notifier.model.message import DEAD, Depth, Lane
from notifier.model.outcome import DeadReason
from notifier.model.trouble import Trouble, TroubleKind
from notifier.operators.status.client_state import ClientState
from notifier.operators.status.health_observer import KEPT_SECONDS, MAX_COUNTS, RefusedEventCounts
from notifier.operators.status.service_status import LaneState, WorkerState, dump_state, status_of, troubles_of
from notifier.operators.status.status_document import document_of
from notifier.operators.status.status_request import parse_status
from tests.cli.in_process import notifier

ISS = "https://id.example.com"
SOURCE = SourceState(name="hydra", kind="hydra", up=False, age=7.0, changed=False, clients=3, problem="timed out")


def worker(name: str) -> bytes:
    """Its state, as it answers."""
    clients = [
        ClientState(iss=ISS, client_id="shop", circuit=2, next_try=1010.0, parked=3, last_failure=990.0, reason="dns"),
        ClientState(iss=ISS, client_id="wiki", delivered=4, last_success=995.5, delayed=1, next_delayed=1030.0),
    ]
    troubles = [Trouble(kind=TroubleKind.UNKNOWN_CLIENT, text="?", iss=ISS, client_id="Shop", since=900.0, count=2)]
    return dump_state(
        WorkerState(
            worker=name, version="1.0", since=500.0, draining=False, in_flight=2, clients=clients, left_out=1,
            held={Lane.EVENTS: LaneState(unsettled=5, oldest=950.0)}, rates={"attempts": 1.5}, troubles=troubles,
            registry=[SOURCE],
        )
    )  # fmt: skip


def test_the_document_of_the_api_is_read_back_whole() -> None:
    """What is shown of it is the same."""
    depths = {Lane.EVENTS.value: Depth(ready=7, consumers=2), "delay.8s": Depth(ready=2, consumers=0)}
    status = status_of(depths | {DEAD: Depth(ready=1, consumers=0)}, [worker("a"), worker("b")], now=1000.0)
    document = json.loads(json.dumps(document_of(status)))
    assert json.loads(json.dumps(document_of(parse_status(document)))) == document


def test_a_worker_without_its_queue_tells_of_its_clients() -> None:
    """What waits is not known, which is no zero."""
    document = document_of(status_of({}, [worker("a")], now=1000.0))
    known = parse_status(json.loads(json.dumps(document)))
    assert known.depths == {}
    assert [client.client_id for client in known.clients] == ["shop", "wiki"]


ODD: tuple[object, ...] = (
    "x",
    "\x1b[2J\ud800",
    5,
    -1,
    0.5,
    float("inf"),
    float("nan"),
    10**400,
    None,
    True,
    [],
    {},
    [None],
    {"x": {}},
)


def whole() -> dict[str, Any]:
    """A document of every kind of member."""
    depths = {Lane.EVENTS.value: Depth(ready=7, consumers=2), "delay.8s": Depth(ready=2, consumers=0)}
    status = status_of(depths | {DEAD: Depth(ready=1, consumers=0)}, [worker("a"), worker("b")], now=1000.0)
    return dict(json.loads(json.dumps(document_of(status))))


def paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to each member, and to the whole."""
    yield path
    for key, member in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from paths(member, (*path, key))


def with_member(document: Any, path: tuple[str | int, ...], odd: object) -> Any:
    """The document with something else there."""
    if not path:
        return odd
    changed = copy.deepcopy(document)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return changed


def test_a_document_with_an_odd_member_is_read_or_refused() -> None:
    """Whichever member it is. What is read can be shown."""
    document = whole()
    read = 0
    for path in paths(document):
        for odd in ODD:
            try:
                known = parse_status(with_member(document, path, odd))
            except ValidationError:
                continue
            read += 1
            json.dumps(document_of(known), allow_nan=False).encode()
    assert read > 100


def asked(body: bytes, cwd: Path, **settings: str) -> tuple[CompletedProcess[str], str]:
    """`notifier status --from` a server that answers so, and where that is."""

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        where = f"http://127.0.0.1:{server.server_port}"
        done = notifier("status", "--from", where, cwd=cwd, settings=settings)
        server.shutdown()
        serving.join()
    return done, where


@pytest.mark.parametrize(
    ("path", "odd"),
    [
        (("queues", "events", "ready"), float("inf")),
        (("workers", "each", 0, "rates"), {"attempts": 10**400}),
        ((), []),
    ],
)
def test_a_server_that_lies_is_told(tmp_path: Path, path: tuple[str | int, ...], odd: object) -> None:
    """As one that is no worker; it is no fault of the command's own."""
    body = json.dumps(with_member(whole(), path, odd)).replace("Infinity", "1e400").encode()
    done, where = asked(body, tmp_path)
    assert (done.returncode, done.stderr) == (1, f"notifier: {where} answered no status that this release knows\n")


def test_a_trouble_of_a_later_release_is_shown() -> None:
    """A worker may be newer than the command."""
    known = parse_status(with_member(whole(), ("troubles", 0, "kind"), "moon_is_full"))
    assert [shared.trouble.kind for shared in troubles_of(known)] == ["moon_is_full"]


def test_an_address_without_a_worker_is_told(tmp_path: Path) -> None:
    """Exit 1. No configuration is needed, and a token leaves this machine over https alone."""
    done = notifier("status", "--from", "http://127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("notifier: http://127.0.0.1:1: ")
    (tmp_path / "token").write_text("secret")
    done = notifier("status", "--from", "http://a.example", "--token-file", "token", cwd=tmp_path)
    assert done.returncode == 2
    assert "https" in done.stderr


def test_a_command_in_what_a_client_met_is_on_one_line(tmp_path: Path) -> None:
    """It can be copied, whatever the width."""
    met = f"{'the registry has no address for it any more; ' * 2}`notifier clients show` says where it comes from"
    body = json.dumps(with_member(whole(), ("clients", 0, "text"), met)).encode()
    for width in range(60, 120, 4):
        assert "`notifier clients show`" in asked(body, tmp_path, COLUMNS=str(width))[0].stdout


# ── Refused events: `notifier status` and the console begin with them, by issuer and reason, until an hour has passed


def refused(iss: str = ISS, reason: DeadReason = DeadReason.PUBLISHER_NOT_ALLOWED, client_id: str = "") -> DeadLettered:
    """A dead letter: of a whole event, unless it names a client."""
    return DeadLettered(
        iss=iss, client_id=client_id, event_id="e-1", reason=reason, text="publisher 'guest' may not speak"
    )


def test_events_are_counted_until_none_was_refused_for_an_hour() -> None:
    """A dead letter of one client is none of them."""
    now = [0.0]
    events = RefusedEventCounts(lambda: now[0])
    for _ in range(50_000):
        events.observe(refused())
    events.observe(refused(client_id="shop"))
    now[0] = KEPT_SECONDS - 1
    events.observe(refused())
    now[0] += KEPT_SECONDS
    [trouble] = events.troubles()
    assert (trouble.kind, trouble.iss, trouble.subject, trouble.since) == (
        TroubleKind.EVENTS_REFUSED,
        ISS,
        "publisher_not_allowed",
        0.0,
    )
    assert trouble.count == 50_001
    assert "publisher 'guest' may not speak" in trouble.text
    now[0] += 1
    assert list(events.troubles()) == []


def test_made_up_issuers_cost_bounded_memory_and_lose_no_count() -> None:
    """Those beyond are counted together."""
    events = RefusedEventCounts(lambda: 0.0)
    for number in range(1000):
        events.observe(refused(f"https://{number}.example", DeadReason.UNKNOWN_ISSUER))
    troubles = list(events.troubles())
    assert len(troubles) == MAX_COUNTS + 1
    assert sum(trouble.count for trouble in troubles) == 1000


def test_what_a_malformed_event_contains_is_not_shown() -> None:
    """Its mistakes may name a user."""
    events = RefusedEventCounts(lambda: 0.0)
    events.observe(refused(reason=DeadReason.MALFORMED_EVENT))
    [trouble] = events.troubles()
    assert "guest" not in trouble.text
    assert trouble.text.endswith("`notifier dead-letters list --reason malformed_event`")


def test_they_come_before_other_troubles() -> None:
    """All but an unreachable queue."""
    events = RefusedEventCounts(lambda: 0.0)
    events.observe(refused())
    key = Trouble(kind=TroubleKind.KEY_MISSING, text="no key", iss=ISS)
    state = WorkerState(
        worker="w", version="1", since=0.0, draining=False, in_flight=0, held={}, rates={}, clients=(),
        troubles=[key, *events.troubles()],
    )  # fmt: skip
    status = status_of({Lane.EVENTS: Depth(ready=0, consumers=1)}, [dump_state(state)], now=60.0)
    kinds = [shared.trouble.kind for shared in troubles_of(status)]
    assert kinds == [TroubleKind.EVENTS_REFUSED, TroubleKind.KEY_MISSING]
