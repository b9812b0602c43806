"""Builds what the settings choose: the queue, the tracing, the hash of subjects in logs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
from yarl import URL

from notifier import __version__
from notifier.adapters.configuration.config_file import read_credentials, read_subject_key
from notifier.adapters.queues.rabbitmq.event_queue import RabbitEventQueue
from notifier.adapters.queues.rabbitmq.options import RabbitOptions
from notifier.adapters.queues.rabbitmq.queue import RabbitQueue
from notifier.adapters.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.adapters.telemetry.logs import SubjectHash
from notifier.domain.errors import ConfigurationError, Mistake
from notifier.domain.message import Binding, Lane
from notifier.operations.queue_port import EventQueue, Queue
from notifier.settings.service_settings import QueueSettings, Settings

if TYPE_CHECKING:
    from notifier.adapters.telemetry.tracing import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_OTEL_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_INSTALL_OTEL = "needs OpenTelemetry, which is not installed: pip install 'notifier[otel]'"


def build_queue(settings: QueueSettings, bindings: tuple[Binding, ...] = ()) -> Queue:
    """The queue that `queue.url` names, not opened yet. Nothing else knows both classes.

    Without `bindings` it neither consumes nor counts the queues of sources.
    """
    prefetch = {lane: getattr(settings.prefetch, lane.value) for lane in Lane}
    if settings.sqlite_file is not None:
        return SqliteQueue(SqliteOptions(path=settings.sqlite_file, prefetch=prefetch))
    return RabbitQueue(replace(rabbit_options(settings, bindings), prefetch=prefetch))


def build_event_queue(settings: QueueSettings) -> EventQueue:
    """What publishes events to the queue that `queue.url` names, and does nothing else there. Not opened yet."""
    return build_queue(settings) if settings.sqlite_file else RabbitEventQueue(rabbit_options(settings))


def rabbit_options(settings: QueueSettings, bindings: tuple[Binding, ...] = ()) -> RabbitOptions:
    """Where RabbitMQ is, how to connect to it, and what the queues of sources are bound to."""
    tls = settings.tls
    return RabbitOptions(
        urls=settings.url,
        credentials=lambda: _credentials(settings),
        tls=None if tls is None else tls.files(),
        prefix=settings.prefix,
        topology=settings.topology,
        management=settings.management,
        bindings=bindings,
        buckets=settings.buckets,
        max_event=settings.max_event,
    )


def _credentials(settings: QueueSettings) -> tuple[str, str] | None:
    """The user name and password in the settings and files now. What is missing there comes from the URL."""
    username, password = read_credentials(settings)
    if username is None and password is None:
        return None
    url = URL(settings.url[0])
    return username or url.user or "", password or url.password or ""


def subject_hash(settings: Settings) -> SubjectHash:
    """The hash that stands for `sub` and `sid` in logs. Raises ConfigurationError."""
    key = read_subject_key(settings)
    return SubjectHash(None if key is None else key.encode())


def build_tracing(settings: Settings, environ: Mapping[str, str]) -> Tracing | None:
    """What writes traces; None if neither the configuration nor the environment asks for them.

    The environment may name a collector for everything on a cluster. So without OpenTelemetry installed, that is only
    a warning; with `tracing` in the configuration it raises ConfigurationError.
    """
    asked = settings.tracing is not None
    if not asked and not any(environ.get(name) for name in _ENDPOINTS):
        return None
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if not _installed():
        if asked:
            raise ConfigurationError([Mistake("tracing", _INSTALL_OTEL)])
        structlog.get_logger().warning("tracing_off", reason=_INSTALL_OTEL)
        return None
    from notifier.adapters.telemetry.tracing import Tracing  # noqa: PLC0415  an extra: imported only where it is wanted

    section = settings.tracing
    if section is None:
        return Tracing(version=__version__)
    return Tracing(section.endpoint, section.sample, version=__version__)


def _installed() -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in _OTEL_MODULES)
    except ModuleNotFoundError:
        return False
