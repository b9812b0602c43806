"""Builds what the settings choose: the queue, the tracing, the hash of subjects in logs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from notifier import __version__

if TYPE_CHECKING:
    from notifier.telemetry.tracing import Tracing


_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_OTEL_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_INSTALL_OTEL = "needs OpenTelemetry, which is not installed: pip install 'logout-notifier[otel]'"


def build_tracing(environ: Mapping[str, str]) -> Tracing | None:
    """Return what writes traces; None if the environment asks for none.

    It may name a collector for everything on a cluster. So without OpenTelemetry installed, that is only a warning.
    """
    if not any(environ.get(name) for name in _ENDPOINTS):
        return None
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if not _installed():
        structlog.get_logger().warning("tracing_off", reason=_INSTALL_OTEL)
        return None
    from notifier.telemetry.tracing import Tracing  # noqa: PLC0415  an extra: imported only where it is wanted

    return Tracing(__version__)


def _installed() -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in _OTEL_MODULES)
    except ModuleNotFoundError:
        return False
