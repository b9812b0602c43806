"""A collector: takes OTLP over HTTP on loopback, and keeps the spans."""

import asyncio
import gzip
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.system.waiting import PATIENCE


class Span:
    """A span as it came, with its ids in hexadecimal."""

    def __init__(self, raw: Any, service: str) -> None:
        self.service = service
        self.name: str = raw.name
        self.trace_id: str = raw.trace_id.hex()
        self.span_id: str = raw.span_id.hex()
        self.parent: str = raw.parent_span_id.hex()
        self.began: int = raw.start_time_unix_nano
        self.ended: int = raw.end_time_unix_nano
        self.failed: bool = raw.status.code == 2
        self.attributes: dict[str, str | int] = {
            item.key: item.value.string_value or item.value.int_value for item in raw.attributes
        }


class Collector:
    """The receiver."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.port = 0
        self._changed = asyncio.Event()
        app = web.Application()
        app.add_routes([web.post("/v1/traces", self._take)])
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def named(self, name: str) -> list[Span]:
        """The spans of that name so far, by their beginning."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.began)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once it holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {item.key: item.value.string_value for item in of_resource.resource.attributes}
            for scope in of_resource.scope_spans:
                self.spans += [Span(raw, names["service.name"]) for raw in scope.spans]
        self._changed.set()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
