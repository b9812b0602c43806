"""Parse the URL that events are published to: the hosts of one RabbitMQ cluster, or notifier's API.

yarl supports one host per URL, so each host of a cluster is parsed in a separate URL.
"""

import re
from dataclasses import dataclass
from typing import Literal

from yarl import URL

_PORTS = {"amqp": 5672, "amqps": 5671}
_FORM = "amqps://USER@HOST:5671/VHOST, with several hosts of one cluster separated by commas, or https://HOST"
_HOSTS = re.compile(r"([A-Za-z]+://(?:[^/?#]*@)?)([^/?#]*)(.*)")  # the part before the hosts, the hosts, the rest

_API_PATH = re.compile(r"/v1(?:/events(?:/.*)?)?$", re.IGNORECASE)


class AddressError(ValueError):
    """The URL is invalid. The text gives the reason and never contains the password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host of a RabbitMQ cluster."""

    name: str
    port: int

    def __str__(self) -> str:
        """Return host and port for log lines."""
        return f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The parsed URL. AMQP uses `hosts`, `user`, `password` and `vhost`; HTTP uses `base`, the API's base URL."""

    protocol: Literal["amqp", "http"]
    tls: bool
    hosts: tuple[Host, ...] = ()
    user: str = ""
    password: str | None = None
    vhost: str = "/"
    base: str = ""


def read_address(url: object) -> Server:
    """Parse and check the URL. Raises AddressError."""
    if not isinstance(url, str) or not url:
        raise AddressError(f"is required: {_FORM}")
    parts = _HOSTS.fullmatch(url)
    if parts is None or not url.isprintable() or " " in url:
        raise AddressError(f"must be {_FORM}")
    before, hosts, behind = parts.groups()
    try:
        urls = [URL(f"{before}{host}{behind}") for host in hosts.split(",")]
    except ValueError:  # its text may contain the password
        raise AddressError("has an invalid host or port: the port must be 1 to 65535") from None
    if not all(each.host and each.explicit_port != 0 for each in urls):
        raise AddressError(f"has a missing host, or port 0: must be {_FORM}")
    if "?" in behind or "#" in behind:
        raise AddressError("must not have a query or a fragment: use the settings of the publisher instead")
    if urls[0].scheme in _PORTS:
        return _to_broker(urls)
    if urls[0].scheme in ("http", "https"):
        return _to_api(urls)
    raise AddressError(f"has the scheme {urls[0].scheme[:20]!r}: must be {_FORM}")


def _to_broker(urls: list[URL]) -> Server:
    url, port = urls[0], _PORTS[urls[0].scheme]
    if not url.user:
        raise AddressError("must name the broker's user: amqps://USER@HOST")
    if "/" in url.raw_path[1:]:
        raise AddressError("has a slash in the virtual host: write %2F")
    return Server(
        protocol="amqp",
        tls=url.scheme == "amqps",
        hosts=tuple(Host(name=str(each.host), port=each.explicit_port or port) for each in urls),
        user=url.user,
        password=url.password,
        vhost=url.path[1:] or "/",
    )


def _to_api(urls: list[URL]) -> Server:
    url = urls[0]
    if len(urls) > 1:
        raise AddressError(f"must have only one host over HTTP: {url.scheme}://HOST")
    if url.user is not None or url.password is not None:
        raise AddressError("must have no user or password over HTTP: set the API's token in `secret_file`")
    base = str(url).rstrip("/")
    if (api := _API_PATH.search(base)) is not None:
        raise AddressError(f"includes the API's path: write {base[: api.start()]}, without {api[0]}")
    return Server(protocol="http", tls=url.scheme == "https", base=base)
