"""Builds what the settings choose: the queue, the tracing, the hash of subjects in logs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from notifier import __version__
from notifier.model.errors import ConfigurationError, Mistake
from notifier.settings.service_settings import Settings

if TYPE_CHECKING:
    from notifier.telemetry.tracing import Tracing


_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_OTEL_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_INSTALL_OTEL = "needs OpenTelemetry, which is not installed: pip install 'logout-notifier[otel]'"


def build_tracing(settings: Settings, environ: Mapping[str, str]) -> Tracing | None:
    """Return what writes traces; None if neither the configuration nor the environment asks for them.

    The environment may name a collector for everything on a cluster. So without OpenTelemetry installed, that is only
    a warning; with `tracing` in the configuration it raises ConfigurationError.
    """
    is_configured = settings.tracing is not None
    if not is_configured and not any(environ.get(name) for name in _ENDPOINTS):
        return None
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if not _installed():
        if is_configured:
            raise ConfigurationError([Mistake("tracing", _INSTALL_OTEL)])
        structlog.get_logger().warning("tracing_off", reason=_INSTALL_OTEL)
        return None
    from notifier.telemetry.tracing import Tracing  # noqa: PLC0415  an extra: imported only where it is wanted

    section = settings.tracing
    if section is None:
        return Tracing(version=__version__)
    return Tracing(section.endpoint, section.sample, version=__version__)


def _installed() -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in _OTEL_MODULES)
    except ModuleNotFoundError:
        return False
