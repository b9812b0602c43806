"""The whole configuration as types: `service` for the one file, `clients` for the registry."""

from notifier.settings.service_settings import (
    ApiSettings,
    DeliverySettings,
    IssuerSettings,
    KeySettings,
    ListenerTls,
    LogSettings,
    OpsSettings,
    QueueSettings,
    Settings,
)
from notifier.settings.values import Listen

__all__ = [
    "ApiSettings",
    "DeliverySettings",
    "IssuerSettings",
    "KeySettings",
    "Listen",
    "ListenerTls",
    "LogSettings",
    "OpsSettings",
    "QueueSettings",
    "Settings",
]
