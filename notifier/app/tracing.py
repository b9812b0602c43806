"""Builds what writes traces, where the configuration or the environment asks for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from notifier import __version__
from notifier.domain.errors import ConfigurationError, Mistake
from notifier.settings import Settings

if TYPE_CHECKING:
    from notifier.adapters.telemetry.tracing import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_INSTALL = "needs OpenTelemetry, which is not installed: pip install 'notifier[otel]'"


def build_tracing(settings: Settings, environ: Mapping[str, str]) -> Tracing | None:
    """What writes traces; None where nobody asks for them. Raises ConfigurationError.

    An environment that names a collector asks, too; there it may have been written for all that runs on a cluster, so
    that OpenTelemetry may be missing.
    """
    asked = settings.tracing is not None
    if not asked and not any(environ.get(name) for name in _ENDPOINTS):
        return None
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if not _installed():
        if asked:
            raise ConfigurationError([Mistake("tracing", _INSTALL)])
        structlog.get_logger().warning("tracing_off", reason=_INSTALL)
        return None
    from notifier.adapters.telemetry.tracing import Tracing  # noqa: PLC0415  an extra: imported only where it is wanted

    section = settings.tracing
    if section is None:
        return Tracing(version=__version__)
    return Tracing(section.endpoint, section.sample, version=__version__)


def _installed() -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in _NEEDED)
    except ModuleNotFoundError:
        return False
