"""Publish "session ended" events from an identity server written in Python: to disk first, then to the broker.

    settings = PublisherSettings(url="amqps://idp@rabbitmq.example.com", secret_file=…, outbox="/var/lib/idp/notifier")
    async with Publisher(settings) as publisher:
        async with publisher.publishing(SessionEnded(iss=…, sub=…, sid=…, clients=["shop"]), session=key):
            await store.delete(key)

`BlockingPublisher` is for code without `await`, `logout_notifier_publisher.django` for Django. The README
explains how it works. Importing the package starts nothing and imports no client library.
"""

import warnings

from logout_notifier_publisher.address import Server
from logout_notifier_publisher.blocking_publisher import BlockingPublisher
from logout_notifier_publisher.event_checks import EventMistake
from logout_notifier_publisher.event_publisher import Publisher
from logout_notifier_publisher.prepared_events import PreparedEvent
from logout_notifier_publisher.publisher_metrics import PublisherCollector, PublisherState
from logout_notifier_publisher.publisher_settings import PublisherSettings, SettingsError
from logout_notifier_publisher.session_ended import Client, SessionEnded

__all__ = [
    "BlockingPublisher",
    "Client",
    "EventMistake",
    "PreparedEvent",
    "Publisher",
    "PublisherCollector",
    "PublisherSettings",
    "PublisherState",
    "Server",
    "SessionEnded",
    "SettingsError",
]

_FORMER_NAMES = {"Ending": PreparedEvent, "SettingsMistake": SettingsError}


def __getattr__(name: str) -> object:
    """Return a class under its former name."""
    if name not in _FORMER_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = _FORMER_NAMES[name]
    warnings.warn(f"`{name}` is deprecated: use `{found.__name__}`", DeprecationWarning, stacklevel=2)
    return found
