"""Settings of a server that notifier calls over HTTP."""

from typing import ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from notifier.settings.clients import HeaderName, HeaderValue
from notifier.settings.policies import TlsSettings
from notifier.settings.values import Section, is_in_clear

IN_CLEAR = "in_clear"  # the type of the only error that does not prevent checks of the rest of its section


HEADERS = "Further request headers. A value is a text, or `{file: PATH}`."


def server_address(*appended: str, instead: str) -> AfterValidator:
    """Return a validator of a server's address, to which notifier appends one of these paths.

    It removes a trailing slash. Its ValueErrors do not show the address. `instead`: the remedy for credentials in it.
    """

    def check(url: str) -> str:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError(f"must hold no user and password; {instead}")
        if "?" in url:
            raise ValueError("must not have a query")
        for path in appended:
            if f"{path}/" in f"{parts.path}/":
                raise ValueError(f"must end before {path}: notifier appends that itself")
        return url.rstrip("/")

    return AfterValidator(check)


class RemoteServerSettings(Section):
    """A server that notifier calls over HTTP. Secrets are sent only over https or to this machine."""

    _address: ClassVar[str] = "url"

    tls: TlsSettings | None = None
    """TLS to the server."""
    allow_http: bool = False
    """Send our credentials to it over http:// too, in clear."""

    @property
    def credentials(self) -> bool:
        """True if requests carry a secret."""
        return True

    @model_validator(mode="after")
    def _not_in_clear(self) -> Self:
        if self.credentials and is_in_clear(getattr(self, self._address)) and not self.allow_http:
            raise PydanticCustomError(
                IN_CLEAR,
                "{address} must begin with https://, since our credentials are sent there; on a network of your own,"
                " where nobody can listen, write allow_http: true beside it",
                {"address": self._address},
            )
        return self


class HeaderServerSettings(RemoteServerSettings):
    """A server that needs no credentials, except in `headers`."""

    headers: dict[HeaderName, HeaderValue] | None = Field(None, repr=False, description=HEADERS)

    @property
    def credentials(self) -> bool:
        """True if requests carry a secret."""
        return bool(self.headers)
