"""Builds the queue that `queue.url` names."""

from dataclasses import replace
from typing import TypeAlias

from yarl import URL

from notifier.adapters.configuration.config_file import read_credentials
from notifier.adapters.queues.rabbitmq.options import BrokerTls, RabbitOptions
from notifier.adapters.queues.rabbitmq.queue import RabbitQueue
from notifier.adapters.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.domain.message import Lane
from notifier.settings import QueueSettings

Queue: TypeAlias = RabbitQueue | SqliteQueue


def build_queue(settings: QueueSettings) -> Queue:
    """The queue that `queue.url` names, not opened yet."""
    prefetch = {lane: getattr(settings.prefetch, lane.value) for lane in Lane}
    if settings.sqlite_file is not None:
        return SqliteQueue(SqliteOptions(path=settings.sqlite_file, prefetch=prefetch))
    return RabbitQueue(replace(rabbit_options(settings), prefetch=prefetch))


def rabbit_options(settings: QueueSettings) -> RabbitOptions:
    """Where RabbitMQ is and how to speak to it."""
    tls = settings.tls
    return RabbitOptions(
        urls=settings.url,
        credentials=lambda: _credentials(settings),
        tls=None if tls is None else BrokerTls(ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file),
        prefix=settings.prefix,
        topology=settings.topology,
        max_event=settings.max_event,
    )


def _credentials(settings: QueueSettings) -> tuple[str, str] | None:
    """User name and password as they stand now; what is not set beside the URL is the URL's."""
    username, password = read_credentials(settings)
    if username is None and password is None:
        return None
    url = URL(settings.url[0])
    return username or url.user or "", password or url.password or ""
