"""The front-channel pages as the configuration in force has them."""

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.publishing.event_requests import Pages


def pages_of(live: LiveConfiguration) -> Pages | None:
    """Return the keys and addresses of pages. None without a section `web`."""
    loaded = live.now
    if loaded.settings.web is None or loaded.web_keys is None:
        return None
    return Pages(keys=loaded.web_keys, urls={iss: each.url for iss, each in loaded.settings.web.issuers.items()})
