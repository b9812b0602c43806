"""The web face: pages for browsers, which the proxy of each issuer serves on the issuer's own origin."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, WithJsonSchema

from notifier.domain.front_channel import origin_of
from notifier.settings.policies import ListenerTls
from notifier.settings.values import ExistingFile, IssuerId, Lasting, Listen, ListenAddress, Section, WebAddress

_ORIGIN = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]+)?")
"""What a policy and a script of a browser can name: one host, no pattern, in ASCII."""


def _page_address(url: str) -> str:
    """The address under which the proxy passes on to us, without a slash at its end."""
    if "?" in url or "@" in urlsplit(url).netloc or not _ORIGIN.fullmatch(origin_of(url) or ""):
        raise ValueError("must have neither a query nor a user: it is where the issuer's proxy passes on to notifier")
    return url.rstrip("/")


def _origin(value: str) -> str:
    origin = origin_of(value)
    if origin is None or not _ORIGIN.fullmatch(origin) or urlsplit(value).path not in ("", "/") or {*"@?#"} & {*value}:
        raise ValueError(
            "must be one origin: scheme, host (in ASCII, no pattern), and port if any, such as"
            " https://upstream.example.com"
        )
    return origin


PageAddress = Annotated[WebAddress, AfterValidator(_page_address)]
Origin = Annotated[str, AfterValidator(_origin), WithJsonSchema({"type": "string", "pattern": "^https?://[^/?#@]+/?$"})]


class WebIssuerSettings(Section):
    """The pages of one issuer."""

    url: PageAddress = Field(
        description="Where the issuer's proxy passes on to this listener, on the issuer's own origin, such as"
        " https://login.example.com/connect/notify."
    )
    parents: tuple[Origin, ...] = Field(
        (), description="Origins beside that of `url` whose pages may be above ours: each ancestor of it counts."
    )
    limit: Annotated[float, Lasting(above=0.0, most=30.0)] = Field(
        5.0, description="How long a page waits for clients."
    )
    frames: Annotated[int, Field(ge=0, le=100)] = Field(
        25, description="Clients that are also asked by a frame. Each costs the browser up to a process."
    )
    show_names: bool = Field(default=False, description="Show the names of clients that gave no sign.")

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins whose pages may be above ours."""
        return tuple(dict.fromkeys((origin_of(self.url) or "", *self.parents)))


class WebSettings(Section):
    """The listener of pages for browsers, and of what upstream providers call."""

    listen: ListenAddress = Field(Listen("127.0.0.1", 8090), description="Address and port.")
    tls: ListenerTls | None = Field(None, description="Serve https to the proxy.")
    keys_file: ExistingFile = Field(
        description="Fernet keys by which the URLs of pages are sealed, one a line. The first seals, all open."
    )
    issuers: dict[IssuerId, WebIssuerSettings] = Field({}, description="By issuer identifier, as in `iss`.")
