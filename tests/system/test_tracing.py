"""Traces: from the publisher's, by the event, to every attempt, over OTLP to a real receiver."""

from pathlib import Path

import pytest
from aiohttp import web

from tests.system.clients import Clients, Hit
from tests.system.loopback import LoopbackServer
from tests.system.otlp_receiver import Collector
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENT = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.full
async def test_publisher_trace_continues_in_each_attempt(tmp_path: Path) -> None:
    """It survives a retry made by another worker; each attempt has its mint and its POST; clients are sent nothing."""
    well = False

    def judge(_hit: Hit) -> int:
        return 200 if well else 503

    async with Collector() as collector, Clients(judge) as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.base}
        site.write()
        site.write_clients([client("shop", clients.url("shop"))])
        event = {"id": "e1", "iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop"]}
        async with worker(site, settings=settings) as first:
            assert (await first.post(event, headers={"traceparent": SENT}))[0] == 202
            await first.until_metric(1, "retries_scheduled_total")
            assert await first.stop() == 0
        well = True
        async with worker(site, settings=settings) as second:
            await second.until_metric(1, "deliveries_settled_total", fate="delivered")
            assert await second.stop() == 0
        await collector.until(lambda: len(collector.named("attempt")) >= 2 and bool(collector.named("event")))

    [of_event] = collector.named("event")
    attempts = collector.named("attempt")
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert {span.service for span in collector.spans} == {"notifier"}
    assert of_event.parent == PARENT
    assert [span.parent for span in attempts] == [of_event.span_id] * len(attempts)
    assert [span.attributes["notifier.attempt"] for span in attempts] == list(range(1, len(attempts) + 1))
    assert attempts[0].failed
    assert attempts[0].attributes["notifier.reason"] == "server_error"
    assert not attempts[-1].failed
    for attempt, hit in zip(attempts, clients.hits, strict=True):
        assert attempt.attributes["notifier.jti"] == hit.claims["jti"]
        inside = sorted((span for span in collector.spans if span.parent == attempt.span_id), key=lambda s: s.began)
        assert [span.name for span in inside] == ["mint", "POST"]
        assert all(attempt.began <= span.began <= span.ended <= attempt.ended for span in inside)
    text = str([span.attributes for span in collector.spans])
    assert "alice" not in text
    assert "s1" not in text.replace("e1", "")


async def test_event_without_publisher_trace_starts_a_trace(tmp_path: Path) -> None:
    """Requested by the environment's standard variable alone; one trace per event, begun by the event."""
    headers: list[str] = []

    async def keep(request: web.BaseRequest) -> web.Response:
        headers.extend(request.headers)
        return web.Response()

    async with Collector() as collector, LoopbackServer(keep) as shop:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        site.write_clients([client("shop", f"{shop.base}/shop")])
        async with worker(site, settings={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.base}) as running:
            for number in (1, 2):
                event = {"id": f"e{number}", "iss": ISSUER, "sub": "u", "sid": f"{number}", "clients": ["shop"]}
                assert (await running.post(event))[0] == 202
            await running.until_metric(2, "deliveries_settled_total", fate="delivered")
            assert await running.stop() == 0
        await collector.until(lambda: len(collector.named("attempt")) == 2 and len(collector.named("event")) == 2)
    assert len({span.trace_id for span in collector.spans}) == 2
    assert [span.parent for span in collector.named("event")] == ["", ""]
    events = {span.span_id: span.trace_id for span in collector.named("event")}
    assert all(events[span.parent] == span.trace_id for span in collector.named("attempt"))
    assert headers
    assert not {name.lower() for name in headers} & {"traceparent", "tracestate", "baggage"}


@pytest.mark.full  # its end waits some seconds for the collector
async def test_unreachable_collector_delays_nothing(tmp_path: Path) -> None:
    """Logouts are delivered, and the worker ends in time and well."""
    async with Clients() as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
        site.write()
        site.write_clients([client("shop", clients.url("shop"))])
        async with worker(site, settings=settings) as running:
            event = {"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop"]}
            assert (await running.post(event))[0] == 202
            await clients.until_notified("shop", ["s1"])
            assert await running.stop() == 0
