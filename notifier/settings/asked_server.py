"""Settings of a server that is asked over HTTP."""

from typing import ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from notifier.settings.clients import HeaderName, HeaderValue
from notifier.settings.policies import TlsSettings
from notifier.settings.values import Section, in_clear

IN_CLEAR = "in_clear"  # the type of the one mistake beside which all else of its section may be judged


HEADERS = "Further request headers. A value is a text, or `{file: PATH}`."


def server_address(*appended: str, instead: str) -> AfterValidator:
    """Checks a server's address, to which notifier appends one of these paths. No slash is left at its end.

    The ValueErrors do not show it. `instead`: what credentials in it are to be replaced by.
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


class AskedServer(Section):
    """A server that is asked over HTTP. A secret goes to it over https, or stays on this machine."""

    _address: ClassVar[str] = "url"

    tls: TlsSettings | None = None
    """TLS to the server."""
    allow_http: bool = False
    """Send our credentials to it over http:// too, in clear."""

    @property
    def credentials(self) -> bool:
        """Whether a secret is sent along."""
        return True

    @model_validator(mode="after")
    def _not_in_clear(self) -> Self:
        if self.credentials and in_clear(getattr(self, self._address)) and not self.allow_http:
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
