"""The broker knows the service by its certificate (SASL EXTERNAL): no user name, no password."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from notifier.model.client import TlsFiles
from notifier.model.errors import QueueError
from notifier.queues.rabbitmq.connection import connect
from notifier.queues.rabbitmq.options import RabbitOptions
from tests.support.certificates import Authority, authority
from tests.support.rabbitmq_node import RabbitmqNode, rabbitmq_node
from tests.system.clients import Clients
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker

pytestmark = pytest.mark.full  # a dedicated node


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of the broker and of its users."""
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(ours: Authority) -> Iterator[RabbitmqNode]:
    """It has a user `logout`, with a password that nobody knows."""
    with rabbitmq_node(
        certificate=ours.issue("127.0.0.1"), client_ca=ours.ca_file, plugins=["rabbitmq_auth_mechanism_ssl"]
    ) as node:
        node.ctl("add_user", "logout", "nobody-knows-it")
        node.ctl("set_permissions", "logout", ".*", ".*", ".*")
        yield node


def _options(ours: Authority, name: str, url: str) -> RabbitOptions:
    return RabbitOptions(urls=(url,), tls=TlsFiles(ca_file=ours.ca_file, cert_file=ours.issue(name)))


async def test_a_worker_runs_by_its_certificate(tmp_path: Path, ours: Authority, node: RabbitmqNode) -> None:
    """Topology, events, deliveries."""
    async with Clients() as clients:
        site = Site(tmp_path, f"amqps://127.0.0.1:{node.tls_port}/?auth=external")
        site.config["queue"]["tls"] = {"ca_file": str(ours.ca_file), "cert_file": str(ours.issue("logout"))}
        site.write()
        site.write_clients([client("shop", clients.url("shop"))])
        async with worker(site) as running:
            event = {"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop"]}
            assert (await running.post(event))[0] == 202
            await clients.until_notified("shop", ["s1"])
            assert await running.stop() == 0


async def test_certificate_without_a_user_is_named(ours: Authority, node: RabbitmqNode) -> None:
    """The error is not about passwords."""
    with pytest.raises(QueueError, match="has no user of our certificate's name"):
        await connect(_options(ours, "stranger", f"amqps://127.0.0.1:{node.tls_port}/?auth=external"), "test")


async def test_broker_without_the_certificate_plugin_is_named(ours: Authority, amqp_url: str) -> None:
    """With what to enable there."""
    with pytest.raises(QueueError, match="takes no certificates: enable its plug-in rabbitmq_auth_mechanism"):
        await connect(RabbitOptions(urls=(f"{amqp_url}?auth=external",)), "test")
