"""The section `api.console`: the pages for operators, which the API listener serves."""

from typing import Self

from pydantic import model_validator

from notifier.features.console.oidc_settings import OidcSettings
from notifier.settings.policies import TokenKeeperSettings
from notifier.settings.service_settings import Settings


class ConsoleSettings(TokenKeeperSettings, extra="forbid"):
    """The console: pages for operators, at `/console/` of the API's address."""

    enabled: bool = True
    """Serve it."""
    oidc: OidcSettings | None = None
    """Sign in at an OpenID Provider. Left out: by a token of `tokens_file` alone."""

    @model_validator(mode="after")
    def _served(self) -> Self:
        if self.oidc is not None and not self.enabled:
            raise ValueError("oidc is for a console that is served; remove it, or set enabled to true")
        return self

    @property
    def knows_tokens(self) -> bool:
        """True if access tokens of the provider are taken."""
        return self.oidc is not None


def console_of(settings: Settings) -> ConsoleSettings | None:
    """Return the section; None without an API."""
    return settings.section("api.console", ConsoleSettings)
