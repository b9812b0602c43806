"""Publishes "session ended" from an identity server that is written in Python: to disk first, then to the broker.

    settings = PublisherSettings(url="amqps://idp@rabbitmq.example.com", secret_file=…, outbox="/var/lib/idp/notifier")
    async with Publisher(settings) as publisher:
        async with publisher.ending(SessionEnded(iss=…, sub=…, sid=…, clients=["shop"]), session=key):
            await store.delete(key)

`BlockingPublisher` is the same for code without `await`, `notifier.publisher.django` for Django. How it works stands in
publishers/python/README.md. Importing this starts nothing, and imports no client library.
"""

from notifier.publisher.address import Server
from notifier.publisher.blocking_publisher import BlockingPublisher
from notifier.publisher.ended import Client, EventMistake, SessionEnded
from notifier.publisher.endings import Ending
from notifier.publisher.event_publisher import Publisher
from notifier.publisher.publisher_metrics import PublisherCollector, PublisherState
from notifier.publisher.publisher_settings import PublisherSettings, SettingsMistake

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
