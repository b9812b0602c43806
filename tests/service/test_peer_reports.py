"""Reports between workers: bounded, the newest of each client, and validated."""

import asyncio
import json
from typing import Any

import pytest

from notifier.delivery.ports import ClientReport
from notifier.service.peer_reports import (
    DOCUMENTS_PER_SECOND,
    MAX_DOCUMENT_BYTES,
    MAX_DOCUMENTS_PER_SECOND,
    MAX_REPORT_SECONDS,
    MAX_REPORTS,
    PeerReports,
)

ISS = "https://id.example"


class Others:
    """A worker's peers, at a time that the test sets. `received`: the received reports."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.received: list[ClientReport] = []
        self.worker = PeerReports(lambda: 2, monotonic=lambda: self.now)

    def tell(self, client_id: str, **members: Any) -> None:
        """Publish a report on this client."""
        self.worker.report(ClientReport(**{"key": (ISS, client_id), "circuit_closed": False, **members}))

    def documents(self) -> list[bytes]:
        """Return the published documents."""
        return list(iter(self.worker.take_document, None))

    def reported(self) -> list[ClientReport]:
        """Return the reports as another worker receives them."""
        other = Others()
        for document in self.documents():
            other.worker.read(document, other.received.append)
        return other.received


@pytest.fixture
def others() -> Others:
    return Others()


def test_sent_report_is_received(others: Others) -> None:
    """Every member, and once."""
    news = ClientReport(
        key=(ISS, "shöp"),
        circuit_closed=True,
        open_seconds=2.0,
        failing_seconds=3.0,
        concurrency=8,
        spacing=0.25,
        former_share=0.5,
        parked=True,
    )
    others.worker.report(news)
    assert others.reported() == [news]
    assert others.reported() == []


def test_a_spacing_is_limited_when_sent_and_when_read(others: Others) -> None:
    """A forged report makes no attempts rarer than one in 16 s."""
    others.tell("shop", spacing=300.0)
    (sent,) = others.documents()
    members = json.loads(sent)["news"][0]
    assert members["spacing"] == 16.0
    others.worker.read(json.dumps({"v": 1, "news": [members | {"spacing": 1e9}]}).encode(), others.received.append)
    assert [news.spacing for news in others.received] == [16.0]


def test_newest_report_of_a_client_wins(others: Others) -> None:
    """Clients of other issuers with the same name are others."""
    others.tell("shop", open_seconds=1.0)
    others.tell("wiki", open_seconds=2.0)
    others.tell("shop", circuit_closed=True)
    others.tell("shop", key=("https://other.example", "shop"))
    assert [(news.key[1], news.circuit_closed) for news in others.reported()] == [
        ("wiki", False),
        ("shop", True),
        ("shop", False),
    ]


def test_spans_are_reported_as_of_sending(others: Others) -> None:
    """It failed for longer, and rests for less. One that is up fails no more."""
    others.tell("shop", failing_seconds=10.0, open_seconds=0.75)
    others.tell("wiki", failing_seconds=10.0, open_seconds=0.25)
    others.tell("mail", circuit_closed=True)
    others.now += 0.5
    assert [(news.failing_seconds, news.open_seconds) for news in others.reported()] == [
        (10.5, 0.25),
        (10.5, 0.0),
        (0.0, 0.0),
    ]


def test_report_that_is_unsent_for_long_is_dropped(others: Others) -> None:
    """The broker was unreachable."""
    others.tell("shop")
    others.now += MAX_REPORT_SECONDS
    others.tell("wiki")
    others.now += 0.1
    assert [news.key[1] for news in others.reported()] == ["wiki"]


def test_reports_of_100000_clients_are_bounded(others: Others) -> None:
    """Of the newest, in small documents. The others find out by themselves."""
    for number in range(100_000):
        others.tell(f"client-{number}-{'x' * 30}")
    documents = others.documents()
    assert max(map(len, documents)) <= MAX_DOCUMENT_BYTES
    assert len(documents) <= 100
    received = Others()
    for document in documents:
        received.worker.read(document, received.received.append)
    assert len(received.received) == MAX_REPORTS
    assert received.received[-1].key[1].startswith("client-99999-")


def test_client_with_an_oversized_name_is_not_reported(others: Others) -> None:
    """Those beside it are."""
    others.tell("shop")
    others.tell("x" * MAX_DOCUMENT_BYTES)
    others.tell("wiki")
    assert [news.key[1] for news in others.reported()] == ["shop", "wiki"]


def test_flood_of_reports_is_ignored_for_a_second(others: Others) -> None:
    """A sender that floods the exchange neither keeps a worker busy nor fills its memory. A second later reports are
    read again.
    """
    flood = json.dumps({"v": 1, "news": [ONE]}).encode()
    for seconds, most in ((0.0, 2), (1.0, 4)):
        others.now = 1000.0 + seconds
        for _ in range(5000):
            others.worker.read(flood, others.received.append)
        assert len(others.received) <= most * DOCUMENTS_PER_SECOND
    assert len(others.received) > 2 * DOCUMENTS_PER_SECOND


def test_invented_workers_do_not_permit_a_flood() -> None:
    """They count as workers, so the number of documents is bounded for all of them."""
    crowded, received = PeerReports(lambda: 1001, monotonic=lambda: 1000.0), list[ClientReport]()
    flood = json.dumps({"v": 1, "news": [ONE]}).encode()
    for _ in range(MAX_DOCUMENTS_PER_SECOND + 1):
        crowded.read(flood, received.append)
    assert len(received) == MAX_DOCUMENTS_PER_SECOND


async def test_waiting_for_reports_returns_the_first_at_once(others: Others) -> None:
    """And the next once there is some."""
    waiting = asyncio.ensure_future(others.worker.wait_for_document())
    for client_id in ("shop", "wiki"):
        await asyncio.sleep(0)
        assert not waiting.done()
        others.tell(client_id)
        assert client_id.encode() in await waiting
        waiting = asyncio.ensure_future(others.worker.wait_for_document())
    waiting.cancel()


ONE = {
    "iss": ISS, "client_id": "shop", "up": False, "failing": 1.0, "rest": 1.0, "cap": 1, "spacing": 0.0,
    "former_share": 0.0, "parked": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"null",
        b'{"v":1}',
        {"v": 2, "news": [ONE]},
        {"v": 1, "news": [ONE, {"iss": ISS}]},
        {"v": 1, "news": [ONE | {"rest": -1}]},
        {"v": 1, "news": [ONE | {"former_share": 1.1}]},
        {"v": 1, "news": [ONE | {"failing": 1e300}]},
        {"v": 1, "news": [ONE | {"rest": float("nan")}]},
        {"v": 1, "news": [ONE | {"failing": float("inf")}]},
        {"v": 1, "news": [ONE | {"cap": 0}]},
        {"v": 1, "news": [ONE | {"cap": 10**40}]},
        {"v": 1, "news": [ONE | {"iss": 7}]},
        {"v": 1, "news": [ONE] * 200},
    ],
)
def test_what_is_malformed_or_of_another_version_has_no_effect(others: Others, document: Any) -> None:
    """Nor has a document larger than any worker sends."""
    document = document if isinstance(document, bytes) else json.dumps(document).encode()
    others.worker.read(document, others.received.append)
    assert others.received == []


def test_members_of_later_releases_are_ignored(others: Others) -> None:
    """The known members of the report are read."""
    others.worker.read(json.dumps({"v": 1, "news": [ONE | {"mood": "well"}], "at": 7}).encode(), others.received.append)
    assert others.received == [
        ClientReport(key=(ISS, "shop"), circuit_closed=False, failing_seconds=1.0, open_seconds=1.0)
    ]
