"""Where events are published to: the hosts of one RabbitMQ cluster, or notifier's API. Read from one URL."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

_PORTS = {"amqp": 5672, "amqps": 5671}
_FORM = "amqps://USER@HOST:5671/VHOST, with several hosts of one cluster separated by commas, or https://HOST"
_HOST = re.compile(r"[A-Za-z0-9._-]+")


class AddressMistake(ValueError):  # noqa: N818  it is one
    """The URL cannot be used. The text says why, and never holds the password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host of the cluster."""

    name: str
    port: int

    def __str__(self) -> str:
        """As a log line names it."""
        return f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the URL says. For AMQP `hosts`, `user`, `password` and `vhost`; for HTTP the `base` of the API's paths."""

    protocol: Literal["amqp", "http"]
    tls: bool
    hosts: tuple[Host, ...] = ()
    user: str = ""
    password: str | None = None
    vhost: str = "/"
    base: str = ""


def read_address(url: object) -> Server:
    """Raises AddressMistake."""
    if not isinstance(url, str) or not url:
        raise AddressMistake(f"is required: {_FORM}")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or any(character.isspace() or ord(character) < 32 for character in url):
        raise AddressMistake(f"must be {_FORM}")
    if scheme in _PORTS:
        return _broker(scheme, rest)
    if scheme in ("http", "https"):
        return _api(url, scheme)
    raise AddressMistake(f"has the scheme {scheme[:20]!r}: must be {_FORM}")


def _broker(scheme: str, rest: str) -> Server:
    authority, _, path = rest.partition("/")
    if "?" in rest or "#" in rest:
        raise AddressMistake("must not have a query or a fragment: each of its settings has a name of its own here")
    credentials, at, hosts = authority.rpartition("@")
    user, colon, password = credentials.partition(":")
    if not at or not user:
        raise AddressMistake("must name the broker's user: amqps://USER@HOST")
    if "/" in path:
        raise AddressMistake("has a virtual host with a slash in it: write %2F")
    return Server(
        protocol="amqp",
        tls=scheme == "amqps",
        hosts=tuple(_host(each, _PORTS[scheme]) for each in hosts.split(",")),
        user=unquote(user),
        password=unquote(password) if colon else None,
        vhost=unquote(path) or "/",
    )


def _host(text: str, port: int) -> Host:
    literal, name, rest = text.startswith("["), text, ""
    if literal:
        name, _, rest = text[1:].partition("]")
        name = str(_ip(name))
    elif ":" in text:
        name, _, rest = text.partition(":")
        rest = f":{rest}"
    if not name or not (literal or _HOST.fullmatch(name)):
        raise AddressMistake(f"names no host where one should be: must be {_FORM}")
    if rest:
        digits = rest[1:]
        if not rest.startswith(":") or not digits.isascii() or not digits.isdigit() or not 0 < int(digits) < 65_536:
            raise AddressMistake("has a port that is none: 1 to 65535")
        port = int(digits)
    return Host(name=name, port=port)


def _ip(text: str) -> ipaddress.IPv6Address:
    try:
        return ipaddress.IPv6Address(text)
    except ValueError:
        raise AddressMistake("has brackets around what is no IPv6 address") from None


def _api(url: str, scheme: str) -> Server:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise AddressMistake("has a host or a port that is none") from None
    if not host:
        raise AddressMistake(f"names no host: {scheme}://HOST")
    if parts.username is not None or parts.password is not None:
        raise AddressMistake("must not hold a user or a password: the API's token goes into `secret_file`")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise AddressMistake("must not have a query or a fragment")
    path = parts.path.rstrip("/")
    if path.endswith("/v1/events"):
        raise AddressMistake("must end before /v1/events")
    return Server(protocol="http", tls=scheme == "https", base=f"{scheme}://{parts.netloc}{path}")
