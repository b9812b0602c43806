"""Defines the section of a client's `notifier` by which a feature declares another channel than logout tokens."""

from collections.abc import Iterator

from notifier.model.client import Client
from notifier.model.client_channel import ClientChannel
from notifier.settings.clients import ClientOptions
from notifier.settings.values import Section


class ChannelSection(Section):
    """The channel of a client. A feature derives its section from it, and declares it in its client options."""

    def to_channel(self) -> ClientChannel:
        """Return the channel as the pipeline uses it."""
        raise NotImplementedError

    def find_errors(self, client: Client, options: ClientOptions) -> Iterator[tuple[str, str]]:
        """Yield each setting of the client that contradicts its channel, and its error."""
        raise NotImplementedError

    def find_warnings(self, client: Client, row: object) -> Iterator[tuple[str, str]]:
        """Yield each setting of the client that is permitted but not advisable, and its warning. `row`: as written."""
        raise NotImplementedError
