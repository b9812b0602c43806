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


class AddressMistake(ValueError):  # noqa: N818  it is one
    """The URL is invalid. The text gives the reason and never contains the password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host of the cluster."""

    name: str
    port: int

    def __str__(self) -> str:
        """Return the host as log lines have it."""
        return f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The parsed URL. For AMQP `hosts`, `user`, `password` and `vhost`; for HTTP the `base` of the API's paths."""

    protocol: Literal["amqp", "http"]
    tls: bool
    hosts: tuple[Host, ...] = ()
    user: str = ""
    password: str | None = None
    vhost: str = "/"
    base: str = ""


def read_address(url: object) -> Server:
    """Parse and check the URL. Raises AddressMistake."""
    if not isinstance(url, str) or not url:
        raise AddressMistake(f"is required: {_FORM}")
    parts = _HOSTS.fullmatch(url)
    if parts is None or not url.isprintable() or " " in url:
        raise AddressMistake(f"must be {_FORM}")
    before, hosts, behind = parts.groups()
    try:
        urls = [URL(f"{before}{host}{behind}") for host in hosts.split(",")]
    except ValueError:  # its text may contain the password
        raise AddressMistake("has an invalid host or port: the port must be 1 to 65535") from None
    if not all(each.host and each.explicit_port != 0 for each in urls):
        raise AddressMistake(f"names no host, or port 0, where a host should be: must be {_FORM}")
    if "?" in behind or "#" in behind:
        raise AddressMistake("must not have a query or a fragment: use the settings of the publisher instead")
    if urls[0].scheme in _PORTS:
        return _to_broker(urls)
    if urls[0].scheme in ("http", "https"):
        return _to_api(urls)
    raise AddressMistake(f"has the scheme {urls[0].scheme[:20]!r}: must be {_FORM}")


def _to_broker(urls: list[URL]) -> Server:
    url, port = urls[0], _PORTS[urls[0].scheme]
    if not url.user:
        raise AddressMistake("must name the broker's user: amqps://USER@HOST")
    if "/" in url.raw_path[1:]:
        raise AddressMistake("has a virtual host with a slash in it: write %2F")
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
        raise AddressMistake(f"names several hosts, and only brokers may be several: {url.scheme}://HOST")
    if url.user is not None or url.password is not None:
        raise AddressMistake("must not hold a user or a password: the API's token goes into `secret_file`")
    base = str(url).rstrip("/")
    if (api := _API_PATH.search(base)) is not None:
        raise AddressMistake(f"includes the API's path: write {base[: api.start()]}, without {api[0]}")
    return Server(protocol="http", tls=url.scheme == "https", base=base)
