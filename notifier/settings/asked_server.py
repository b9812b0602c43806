"""A server that is asked over HTTP, as an operator names it."""

from typing import ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from notifier.settings.clients import HeaderName, HeaderValue
from notifier.settings.policies import TlsSettings
from notifier.settings.values import Listen, Section

IN_CLEAR = "in_clear"  # the type of the one mistake beside which all else of its section may be judged


HEADERS = "Further request headers. A value is a text, or `{file: PATH}`."


class AskedServer(Section):
    """A server that is asked over HTTP. A secret goes to it over https, or stays on this machine."""

    _address: ClassVar[str] = "url"

    tls: TlsSettings | None = Field(None, description="TLS to the server.")
    allow_http: bool = Field(default=False, description="Send our credentials to it over http:// too, in clear.")

    @property
    def credentials(self) -> bool:
        """Whether a secret is sent along."""
        return True

    @model_validator(mode="after")
    def _not_in_clear(self) -> Self:
        parts = urlsplit(getattr(self, self._address))
        safe = parts.scheme == "https" or Listen(parts.hostname or "", 0).loopback
        if self.credentials and not safe and not self.allow_http:
            raise PydanticCustomError(
                IN_CLEAR,
                "{address} must begin with https://, since our credentials are sent there; on a network of your own,"
                " where nobody can listen, write allow_http: true beside it",
                {"address": self._address},
            )
        return self


class HeadersServer(AskedServer):
    """One that needs no credentials. What is in `headers` counts as such."""

    headers: dict[HeaderName, HeaderValue] | None = Field(None, repr=False, description=HEADERS)

    @property
    def credentials(self) -> bool:
        """Whether a secret is sent along."""
        return bool(self.headers)
