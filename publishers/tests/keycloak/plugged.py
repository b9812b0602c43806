"""A Keycloak with the plug-in, on an empty database; and the way from there to RabbitMQ, which a test can cut."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from publishers.tests.keycloak.plugin import plugin_jar
from publishers.tests.keycloak.plugin_settings import plugin_options
from tests.support.databases import DatabaseServer
from tests.support.keycloak_installation import find_keycloak_with
from tests.support.keycloak_server import Keycloak, KeycloakServer
from tests.system.tcp_proxy import TcpProxy

PASSWORD = "of-keycloak-alone"
OFTEN = (
    "--spi-user-sessions--infinispan--session-expiration-period=60",  # of the cleaner in 26.7, at least so much
    "--log-level=warn,dev.notifier:info",
)
METRICS = "notifier_publisher_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An empty one of PostgreSQL's for Keycloak."""

    url: sa.URL

    @property
    def build(self) -> Sequence[str]:
        """Return the options of `kc.sh build`."""
        return ("--db=postgres", "--metrics-enabled=true")

    @property
    def settings(self) -> dict[str, str]:
        """Keycloak's."""
        return {
            "KC_DB_URL": f"jdbc:postgresql://{self.url.host}:{self.url.port}/{self.url.database}",
            "KC_DB_USERNAME": "postgres",
            "KC_DB_PASSWORD": PASSWORD,
            "KC_DB_POOL_MAX_SIZE": "6",
            "KC_SPI_SCHEDULED_INTERVAL": "3",  # of the cleaner in 26.4, in seconds
        }


def new_database(server: DatabaseServer) -> Database:
    """Made in this server."""
    name = f"keycloak_{secrets.token_hex(4)}"
    engine = sa.create_engine(server.root, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return Database(url=sa.make_url(server.root).set(database=name))


def plugged_in(
    version: str,
    folder: Path,
    database: Database,
    settings: Mapping[str, object],
    environment: Mapping[str, str] | None = None,
    *,
    port: int = 0,
) -> KeycloakServer:
    """One with the plug-in, so set, and not started."""
    installation = find_keycloak_with(plugin_jar(), version, *database.build)
    chosen = (*OFTEN, *plugin_options(settings))
    more = {**database.settings, **(environment or {})}
    return KeycloakServer(folder, installation, options=chosen, settings=more, port=port)


def proxy_to(amqp_url: str, port: int = 0) -> TcpProxy:
    """By which the plug-in reaches RabbitMQ."""
    broker = urlsplit(amqp_url)
    return TcpProxy(broker.hostname or "", broker.port or 5672, port=port)


def behind(proxy: TcpProxy, amqp_url: str) -> str:
    """The URL for the plug-in."""
    return amqp_url.replace(f":{urlsplit(amqp_url).port}", f":{proxy.port}")


async def metric(keycloak: Keycloak, name: str) -> float:
    """The sum of one of the plug-in's metrics on Keycloak's own page."""
    async with aiohttp.ClientSession() as session, session.get(keycloak.metrics) as answer:
        families = text_string_to_metric_families(await answer.text())
        return sum(each.value for family in families for each in family.samples if each.name == f"{METRICS}{name}")
