"""`notifier status --from`: what one worker's API knows is shown as the command shows it otherwise."""

import json
from pathlib import Path

from notifier.configuration.clients.registry_refresh import SourceState
from notifier.model.message import DEAD, Depth, Lane
from notifier.model.trouble import Trouble, TroubleKind
from notifier.operators.status.asked_worker import status_in
from notifier.operators.status.client_state import ClientState
from notifier.operators.status.service_status import LaneState, WorkerState, dump_state, status_of
from notifier.operators.status.status_document import document_of
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
    assert json.loads(json.dumps(document_of(status_in(document)))) == document


def test_a_worker_without_its_queue_tells_of_its_clients() -> None:
    """What waits is not known, which is no zero."""
    document = document_of(status_of({}, [worker("a")], now=1000.0))
    known = status_in(json.loads(json.dumps(document)))
    assert known.depths == {}
    assert [client.client_id for client in known.clients] == ["shop", "wiki"]


def test_an_address_without_a_worker_is_told(tmp_path: Path) -> None:
    """Exit 1. No configuration is needed, and a token leaves this machine over https alone."""
    done = notifier("status", "--from", "http://127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("notifier: http://127.0.0.1:1: ")
    (tmp_path / "token").write_text("secret")
    done = notifier("status", "--from", "http://a.example", "--token-file", "token", cwd=tmp_path)
    assert done.returncode == 2
    assert "https" in done.stderr
