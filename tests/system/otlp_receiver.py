"""A collector: takes OTLP over HTTP on loopback, and keeps the spans."""

import gzip
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.system.loopback import LoopbackServer


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


class Collector(LoopbackServer):
    """The receiver."""

    def __init__(self) -> None:
        super().__init__(self._take)
        self.spans: list[Span] = []

    def named(self, name: str) -> list[Span]:
        """The spans of that name so far, by their beginning."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.began)

    async def _take(self, request: web.BaseRequest) -> web.Response:
        assert (request.method, request.path) == ("POST", "/v1/traces")
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {item.key: item.value.string_value for item in of_resource.resource.attributes}
            for scope in of_resource.scope_spans:
                self.spans += [Span(raw, names["service.name"]) for raw in scope.spans]
        self.changed.set()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")
