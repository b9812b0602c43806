"""Pages for browsers: the section `web`. The proxy of each issuer serves them on the issuer's own origin."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from notifier.model.origins import origin_of
from notifier.settings.file_paths import ExistingFile
from notifier.settings.policies import WebListenerSettings
from notifier.settings.service_settings import Settings
from notifier.settings.values import (
    DurationField,
    IssuerId,
    Origin,
    Section,
    WebAddress,
    check_single_host,
)


def _check_page_address(url: str) -> str:
    """Return the URL without a trailing slash. Raises ValueError if it cannot be the start of pages' URLs."""
    if "?" in url or "@" in urlsplit(url).netloc:
        raise ValueError("must have neither a query nor a user: it is where the issuer's proxy passes on to notifier")
    url = check_single_host(url).rstrip("/")
    if "//" in urlsplit(url).path or "\\" in url:
        raise ValueError("must have single slashes in its path: browsers read what follows two as another host")
    return url


PageAddress = Annotated[WebAddress, AfterValidator(_check_page_address)]
CookieName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$")]
PageName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


class SessionFormula(StrEnum):
    """How an identity server computes `session_state` from its browser-state cookie."""

    SPECIFICATION = "specification"
    DUENDE = "duende"
    WSO2 = "wso2"
    KEYCLOAK = "keycloak"


STATE_COOKIES: Mapping[SessionFormula, str] = {
    SessionFormula.DUENDE: "idsrv.session",
    SessionFormula.WSO2: "opbs",
    SessionFormula.KEYCLOAK: "KEYCLOAK_SESSION",
}
"""The default name of each product's browser-state cookie."""


class WebIssuerSettings(Section):
    """The pages of one issuer."""

    gone: ClassVar[Mapping[str, str]] = {"frames": "is gone: it is 25 now"}

    url: PageAddress
    """The address, on the issuer's own origin, that the issuer's proxy forwards to this listener, such as
    https://login.example.com/connect/notify."""
    keys_file: ExistingFile | None = None
    """Fernet keys of this issuer's pages only. A holder of a key may supply addresses of its clients."""
    parents: tuple[Origin, ...] = ()
    """Origins, besides that of `url`, that may frame the page. Each ancestor frame must be permitted."""
    limit: Annotated[float, DurationField(above=0.0, most=30.0)] = 5.0
    """Seconds that a page waits for clients."""
    show_names: bool = False
    """Show the names of clients without a response."""

    @property
    def origins(self) -> tuple[str, ...]:
        """Return the origins that may frame the page."""
        return tuple(dict.fromkeys((origin_of(self.url) or "", *self.parents)))

    @property
    def path(self) -> str:
        """Return the path of the pages at the issuer's proxy, without a trailing slash."""
        return urlsplit(self.url).path


class CheckSessionSettings(Section):
    """A page by which clients of one issuer check whether their session has changed (Session Management 1.0)."""

    issuer: IssuerId
    """The issuer whose clients may use the page."""
    formula: SessionFormula
    """The issuer's formula for `session_state`: the example of the specification, or that of a product."""
    cookie: CookieName | None = None
    """The issuer's browser-state cookie, which scripts can read. Default: the product's cookie name."""

    @model_validator(mode="after")
    def _check_cookie(self) -> Self:
        if self.cookie is None and self.formula not in STATE_COOKIES:
            raise ValueError(
                f"cookie is required with formula {self.formula}: the name of the issuer's browser-state cookie"
            )
        return self

    @property
    def state_cookie(self) -> str:
        """Return the name of the browser-state cookie: the product's, unless `cookie` is set."""
        return self.cookie or STATE_COOKIES[self.formula]

    @property
    def binds_origin(self) -> bool:
        """Return whether a `session_state` is valid for one client at one origin only."""
        return self.formula is not SessionFormula.KEYCLOAK


class WebSettings(WebListenerSettings, extra="forbid"):
    """The listener of pages for browsers and of requests by upstream providers."""

    keys_file: ExistingFile | None = None
    """Fernet keys for the URLs of all pages, one per line. The first seals, all open. Required with `issuers`."""
    issuers: dict[IssuerId, WebIssuerSettings] = Field({})
    """By issuer identifier, as in `iss`."""
    check_session: dict[PageName, CheckSessionSettings] = Field({})
    """Pages by which clients check whether their session has changed, by page name."""

    def url_of(self, iss: str) -> str | None:
        """Return the address of the issuer's pages; None if it has none."""
        return self.issuers[iss].url if iss in self.issuers else None

    @model_validator(mode="after")
    def _check_keys_file(self) -> Self:
        if self.issuers and self.keys_file is None:
            raise ValueError(
                "keys_file is required, since it seals the addresses of issuers' pages: `notifier keys web` makes one"
            )
        return self


def web_of(settings: Settings) -> WebSettings | None:
    """Return the section `web`; None if the settings have none."""
    return settings.section("web", WebSettings)
