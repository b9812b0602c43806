"""What an operator is told of a client's TLS, by real handshakes through the worker: in dead letters and in the log."""

import io
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from notifier.adapters.http import HttpTransport
from notifier.adapters.telemetry.logs import LogObserver, SubjectHash
from notifier.domain.client import RetryPolicy, TlsFiles
from notifier.domain.outcome import Wire
from notifier.pipeline.ports import Request
from tests import behaviours as do
from tests.adapters.http.http_requests import LOOPBACK
from tests.certificates import Authority, authority
from tests.pipeline.stage import Behaviour, Stage, client, running
from tests.receivers import scripted

ONE_ATTEMPT = RetryPolicy(max_age=1.0)


def over(transport: HttpTransport, uri: str, tls: TlsFiles) -> Behaviour:
    """A client of the stage that is really there."""

    async def behave(request: Request) -> Wire:
        return await transport.post(replace(request, uri=uri, route=replace(request.route, egress=LOOPBACK, tls=tls)))

    return behave


def logged(stage: Stage) -> list[dict[str, Any]]:
    """The log's lines of all that happened on the stage."""
    stream = io.StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(stream), processors=[structlog.processors.JSONRenderer()], wrapper_class=None
    )
    observer = LogObserver(hashing=SubjectHash(b"k" * 32), logger=logger)
    for fact in stage.facts:
        observer.observe(fact)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("expired", "certificate: certificate has expired on DAY"),
        ("name", "certificate: Hostname mismatch, certificate is not valid for 'localhost'."),
        ("authority", "certificate: unable to get local issuer certificate"),
    ],
)
async def test_what_is_wrong_is_told(
    transport: HttpTransport, ca: Authority, tmp_path: Path, wrong: str, text: str
) -> None:
    """In the outcomes of the dead letter and in the line of the attempt, with `tls` as the reason."""
    text = text.replace("DAY", f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}")
    server = ca.server("other.example") if wrong == "name" else ca.server(expired=wrong == "expired")
    trusted = authority(tmp_path / "other", "Other CA") if wrong == "authority" else ca
    async with scripted(tls=server, host="localhost") as receiver:
        async with running(Stage(client("shop", retry=ONE_ATTEMPT))) as stage:
            stage.receivers.behaviours["shop"] = over(transport, receiver.url, TlsFiles(ca_file=trusted.ca_file))
            await stage.acked(stage.event("shop"))
        assert not receiver.requests
    [letter] = stage.dead()
    assert [(met["reason"], met["text"]) for met in letter["outcomes"]] == [("tls", text)]
    [line] = [line for line in logged(stage) if line["event"] == "attempt"]
    assert (line["reason"], line["error"]) == ("tls", text)


async def test_a_missing_file_is_told_and_the_delivery_waits(transport: HttpTransport, tmp_path: Path) -> None:
    """Ours, not the client's: a deferral `tls_files` that names the file; no attempt counts."""
    missing = tmp_path / "missing.pem"
    async with running(Stage(client("shop", retry=ONE_ATTEMPT))) as stage:
        stage.receivers.behaviours["shop"] = over(transport, "https://localhost:9/", TlsFiles(ca_file=missing))
        await stage.acked(stage.event("shop"))
    [line] = [line for line in logged(stage) if line["event"] == "deferral"]
    assert line["cause"] == "tls_files"
    assert str(missing) in line["error"]
    assert stage.dead() == []


async def test_a_renewed_client_certificate_is_shown_at_the_next_attempt(
    transport: HttpTransport, ca: Authority, tmp_path: Path
) -> None:
    """Certificate and key are replaced together; the connection made with the old ones is not used again."""
    shown: list[str] = []

    async def look(peer: do.Peer) -> None:
        [[(_, name)]] = peer.writer.get_extra_info("ssl_object").getpeercert()["subject"]
        shown.append(name)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    mine = tmp_path / "mine.pem"
    files = TlsFiles(ca_file=ca.ca_file, cert_file=mine)
    async with (
        scripted(do.Behaviour(run=look), tls=ca.server(mutual=True), host="localhost") as receiver,
        running(Stage(client("shop"))) as stage,
    ):
        stage.receivers.behaviours["shop"] = over(transport, receiver.url, files)
        for name in ("first", "first", "second"):
            os.replace(ca.issue(name), mine)  # noqa: PTH105  atomically, as the name says
            await stage.acked(stage.event("shop"))
    assert shown == ["first", "first", "second"]
