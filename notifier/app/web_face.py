"""The web face: what the web listener serves, by the configuration as it is at each request."""

from collections.abc import Iterator

from aiohttp import web

from notifier.adapters.configuration.live_configuration import LiveConfiguration


class WebFace:
    """Makes the routes of the web listener. Without a section `web` at the start nothing listens."""

    def __init__(self, live: LiveConfiguration) -> None:
        self._live = live

    def routes(self) -> Iterator[web.RouteDef]:
        """The routes, for the application of the web listener."""
        yield from ()
