"""Defines the types of values in a configuration: durations, addresses and networks, with their checks."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from notifier.model.durations import format_duration, parse_duration
from notifier.model.origins import origin_of
from notifier.model.printable import stray_character

_ORIGIN = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]+)?")
"""An origin usable in a content security policy and in scripts: one ASCII host, without a pattern."""


def check_plain_name(name: str) -> str:
    """Return the name. Raises ValueError if it is empty, or has invisible characters, such as from copying."""
    if not name:
        raise ValueError("must not be empty")
    if (stray := stray_character(name)) is not None:
        raise ValueError(stray)
    return name


Name = Annotated[str, AfterValidator(check_plain_name)]


def check_single_host(url: str) -> str:
    """Return the URL. Raises ValueError if a content security policy cannot contain its origin."""
    if not _ORIGIN.fullmatch(origin_of(url) or ""):
        raise ValueError("must have one host, in ASCII and no pattern, such as https://login.example.com")
    return url


def _check_origin(value: str) -> str:
    origin = origin_of(value)
    has_more = urlsplit(value).path not in ("", "/") or not {*"@?#"}.isdisjoint(value)
    if origin is None or has_more or not _ORIGIN.fullmatch(origin):
        raise ValueError(
            "must be one origin: scheme, host (in ASCII, no pattern), and port if any, such as"
            " https://upstream.example.com"
        )
    return origin


Origin = Annotated[
    str, AfterValidator(_check_origin), WithJsonSchema({"type": "string", "pattern": "^https?://[^/?#@]+/?$"})
]


def refuse_user(url: str) -> str:
    """Return the URL. Raises ValueError, whose text does not show the URL, if it has a user or password."""
    if "@" in urlsplit(url).netloc:
        raise ValueError("must hold no user and password; give headers: {Authorization: {file: PATH}}")
    return url


MAX_HOLD_SECONDS = 600.0
"""Seconds that a message may be held unacked. RabbitMQ's consumer_timeout is 30 min; the rest is for slow disks."""


class Section(BaseModel):
    """A mapping without unknown members. A null member counts as left out.

    The text below a member describes it: `config_schema` reads it. Pydantic would read it at each start, in 60 ms.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    gone: ClassVar[Mapping[str, str]] = {}
    """Removed settings, each with its remedy."""
    of_features: ClassVar[Mapping[str, str]] = {}
    """Members that a feature declares, with the name of the feature."""
    not_in_defaults: ClassVar[Collection[str]] = ()
    """Members that a client may have, and `registry.defaults` must not have."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}


class FeatureSection(Section, extra="allow"):
    """A section whose members a feature declares. Without the feature it accepts any members and ignores them."""


@dataclass(frozen=True, slots=True)
class DurationField:
    """Annotates a float as a duration in text form, longer than `above` and at most `most` seconds."""

    above: float = -1.0
    most: float = 3650 * 86_400.0

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        serialization = core_schema.plain_serializer_function_ser_schema(format_duration)
        return core_schema.no_info_plain_validator_function(self._read, serialization=serialization)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^(0|[0-9]+(\.[0-9]+)?(ms|s|m|h|d))$", "examples": ["500ms", "5s", "24h"]}

    def _read(self, value: object) -> float:
        seconds = parse_duration(value)
        if seconds <= self.above:
            raise ValueError(f"must be longer than {format_duration(self.above)}")
        if seconds > self.most:
            raise ValueError(f"must be at most {format_duration(self.most)}")
        return seconds


Duration = Annotated[float, DurationField()]
PositiveDuration = Annotated[float, DurationField(above=0.0)]
HoldDuration = Annotated[float, DurationField(above=0.0, most=MAX_HOLD_SECONDS)]


@dataclass(frozen=True, slots=True)
class Listen:
    """The address of a listener. Port 0 lets the system choose. `*`: all addresses, of IPv4 and IPv6."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """True if only this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        """Return `host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_in_clear(url: str) -> bool:
    """Return True if the URL is http to another machine, so that others can read requests."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not Listen(parts.hostname or "", 0).loopback


def _listen(value: object) -> Listen:
    if isinstance(value, Listen):
        return value
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]+]+)):([0-9]{1,5})", str(value))
    if match is None or int(match[3]) > 65_535:
        raise ValueError(f"must be an address and a port: {_listen_advice(str(value))}")
    return Listen(match[1] or match[2], int(match[3]))


def _listen_advice(text: str) -> str:
    if match := re.fullmatch(r"(?:\[\*\]|\+)?:?([0-9]{1,5})", text):  # as other programs have it
        return (
            f'write "*:{match[1]}" for all addresses of this machine, or "127.0.0.1:{match[1]}" for this machine alone'
        )
    if (match := re.fullmatch(r"([0-9A-Fa-f:.]+):([0-9]{1,5})", text)) and ":" in match[1]:
        return f'write an IPv6 address in brackets, "[{match[1]}]:{match[2]}"'
    if (match := re.fullmatch(r"[^\s/]+:([0-9]{5})", text)) and int(match[1]) > 65_535:
        return "the port must be at most 65535"
    if "://" in text:
        return f"write it without {text.partition('://')[0]}://"
    return 'write "127.0.0.1:8080", "[::1]:8080", or "*:8080" for all addresses of this machine'


def _network(value: object) -> IPv4Network | IPv6Network:
    if not isinstance(value, str | IPv4Network | IPv6Network):
        raise ValueError("must be a network such as 10.0.0.0/8 or fd00::/8")  # noqa: TRY004  pydantic's way
    try:
        return ip_network(value)
    except ValueError as error:
        raise ValueError(f"must be a network such as 10.0.0.0/8 or fd00::/8: {error}") from None


def has_host(url: str, *schemes: str) -> bool:
    """Return True if the URL has one of these schemes, a host, and no invalid port.

    `urlsplit` reads the host of `[::1]evil.example` as `::1`. Such a host is refused here.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        follows_bracket = host.rpartition("]")[2][:1]
        is_misread = "[" in host and (not host.startswith("[") or follows_bracket not in ("", ":"))
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and not is_misread
    except ValueError:
        return False


def to_list(value: object) -> object:
    """Return a single string as a list of one."""
    return [value] if isinstance(value, str) else value


def check_web_address(value: str) -> str:
    """Return the value if it is an absolute http or https URL. Otherwise raises ValueError without its password."""
    if not has_host(value, "http", "https") or urlsplit(value).fragment or re.search(r"[^!-~]", value):
        text = "must be an absolute URL that begins with https:// (or http://), without a fragment"
        raise ValueError(stray_character(value) or text)
    if not {*",;|"}.isdisjoint(urlsplit(value).netloc):
        raise ValueError("must have one host: give one URL")
    return value


def _without_password(url: str) -> str:
    if "@" in urlsplit(url).netloc:
        raise ValueError("must hold no user and password: it is read without any")
    return url


def _issuer(value: str) -> str:
    _without_password(check_web_address(value))
    if "?" in value or "#" in value:
        raise ValueError("must have neither a query nor a fragment: write the issuer as in `iss`")
    return value


ListenAddress = Annotated[
    Listen,
    PlainValidator(_listen),
    PlainSerializer(str),
    WithJsonSchema(
        {"type": "string", "pattern": "^.+:[0-9]{1,5}$", "examples": ["127.0.0.1:8080", "0.0.0.0:8080", "*:8080"]}
    ),
]
TextList = Annotated[tuple[str, ...], BeforeValidator(to_list, json_schema_input_type=str | list[str])]
"""One text, or a list of them."""
ListedNames = Annotated[tuple[Name, ...], BeforeValidator(to_list, json_schema_input_type=str | list[str])]
Network = Annotated[
    IPv4Network | IPv6Network,
    PlainValidator(_network),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$", "examples": ["10.0.0.0/8"]}),
]
WebAddress = Annotated[
    str, AfterValidator(check_web_address), WithJsonSchema({"type": "string", "pattern": "^https?://[^/?#][^#]*$"})
]
PublicAddress = Annotated[WebAddress, AfterValidator(_without_password)]
"""The URL of a public document, which messages show."""
IssuerId = Annotated[
    str, AfterValidator(_issuer), WithJsonSchema({"type": "string", "pattern": "^https?://[^/?#][^?#]*$"})
]
Count = Annotated[int, Field(ge=1)]
