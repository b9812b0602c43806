"""Publish "session ended" events from an identity server written in Python: to disk first, then to the broker.

    settings = PublisherSettings(url="amqps://idp@rabbitmq.example.com", secret_file=…, outbox="/var/lib/idp/notifier")
    async with Publisher(settings) as publisher:
        async with publisher.ending(SessionEnded(iss=…, sub=…, sid=…, clients=["shop"]), session=key):
            await store.delete(key)

`BlockingPublisher` is the same for code without `await`, `logout_notifier_publisher.django` for Django. The README
explains how it works. Importing the package starts nothing and imports no client library.
"""

from logout_notifier_publisher.address import Server
from logout_notifier_publisher.blocking_publisher import BlockingPublisher
from logout_notifier_publisher.endings import Ending
from logout_notifier_publisher.event_checks import EventMistake
from logout_notifier_publisher.event_publisher import Publisher
from logout_notifier_publisher.publisher_metrics import PublisherCollector, PublisherState
from logout_notifier_publisher.publisher_settings import PublisherSettings, SettingsMistake
from logout_notifier_publisher.session_ended import Client, SessionEnded

__all__ = [
    "BlockingPublisher",
    "Client",
    "Ending",
    "EventMistake",
    "Publisher",
    "PublisherCollector",
    "PublisherSettings",
    "PublisherState",
    "Server",
    "SessionEnded",
    "SettingsMistake",
]
