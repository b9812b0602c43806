"""Build the routes of pages for the web listener. Each request uses the current configuration."""

import time
from collections.abc import Collection, Iterator

import structlog
from aiohttp import web

from notifier.configuration.clients.authority import issuer_hosts
from notifier.configuration.live_configuration import LiveConfiguration
from notifier.features.browsers.check_session import CheckSessionRoutes, read_check_session_script
from notifier.features.browsers.front_channel_context import OpenedContext, seal_context
from notifier.features.browsers.front_channel_counts import FrontChannelCounts
from notifier.features.browsers.front_channel_routes import FrontChannelRoutes, PageDependencies
from notifier.features.browsers.supplied_addresses import SuppliedAddresses
from notifier.features.browsers.web_keys import PageKeys, PagesPart
from notifier.features.browsers.web_settings import CheckSessionSettings, WebIssuerSettings, web_of
from notifier.model.front_channel import FrontChannelContext
from notifier.model.moment import MinuteLimit
from notifier.model.printable import excerpt

_UNKNOWN_ISSUER_HINT = (
    "web.issuers has no such issuer: have whoever makes the page write it letter by letter as there, or add it"
)
_FOREIGN_KEY_HINT = "the page's key belongs to another issuer: use a key of the issuer's keys_file, or of web.keys_file"


class WebPages:
    """Builds the routes of pages. Without a section `web` at the worker's start there is no listener for them."""

    def __init__(self, live: LiveConfiguration, counts: FrontChannelCounts) -> None:
        self._live = live
        self._log_limit = MinuteLimit()
        self.supplied = SuppliedAddresses(counts, live.registry, self._hosts_of, self._has_exclusive_keys)
        dependencies = PageDependencies(
            open_context=self._open_context, seal_context=self._seal_context, settings_of=self.settings_of,
            registry=live.registry, supplied=self.supplied, counts=counts,
        )  # fmt: skip
        self._pages = FrontChannelRoutes(dependencies)

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes for the web listener's application."""
        yield from self._pages.routes()
        yield from CheckSessionRoutes(
            self._find_check_session_page, self._live.registry, read_check_session_script()
        ).routes()

    def keys(self) -> PageKeys | None:
        """Return the current keys of pages; None without `web.keys_file`."""
        return self._live.current.part(PagesPart).keys

    def settings_of(self, iss: str) -> WebIssuerSettings | None:
        """Return the settings of an issuer's pages; None if it has no pages."""
        section = web_of(self._live.current.settings)
        return None if section is None else section.issuers.get(iss)

    def page_of(self, iss: str, context: FrontChannelContext | None, parents: tuple[str, ...]) -> web.Response:
        """Return a context's page; an empty page without a context, or if the issuer has no pages.

        The origins `parents` may frame the page, besides those of the issuer's settings.
        """
        settings = self.settings_of(iss)
        if settings is None:
            return self._pages.page_of(None, parents)
        return self._pages.page_of(context, tuple(dict.fromkeys((*parents, *settings.origins))))

    def _open_context(self, text: str) -> OpenedContext | None:
        """Return the opened context; None if it is invalid or expired. Log why a validly sealed context is refused."""
        keys = self.keys()
        opened = None if keys is None else keys.open(text, time.time(), self._log_refused_page)
        if opened is not None and self.settings_of(opened.context.iss) is None:
            self._log_refused_page(opened.context.iss)
        return opened

    def _log_refused_page(self, iss: str) -> None:
        """Log why the page of a validly sealed context is refused. The browser receives a 400 without the reason."""
        if not self._log_limit.allows():
            return
        self._log_limit.on_logged()
        hint = _UNKNOWN_ISSUER_HINT if self.settings_of(iss) is None else _FOREIGN_KEY_HINT
        structlog.get_logger().warning("front_channel_refused", iss=excerpt(iss), hint=hint)

    def _seal_context(self, context: FrontChannelContext) -> str:
        keys = self.keys()
        assert keys is not None, (
            "the settings require keys_file with issuers, and only an issuer with pages has contexts"
        )
        return seal_context(context, keys.keys_of(context.iss), time.time())

    def _has_exclusive_keys(self, iss: str) -> bool:
        keys = self.keys()
        return keys is None or keys.has_exclusive_keys(iss)

    def _hosts_of(self, iss: str) -> Collection[str]:
        return issuer_hosts(self._live.current.settings, iss)

    def _find_check_session_page(self, name: str) -> CheckSessionSettings | None:
        section = web_of(self._live.current.settings)
        return None if section is None else section.check_session.get(name)
