"""Defines the section of a client's `notifier` by which a feature declares another channel than logout tokens."""

from collections.abc import Collection, Iterator

from pydantic import PrivateAttr

from notifier.model.client import Client
from notifier.model.client_channel import ClientChannel
from notifier.settings.clients import ClientOptions
from notifier.settings.values import Section


class ChannelKindSection(Section):
    """The settings of one kind of channel. A feature derives its sections from it."""

    _of_preset: Collection[str] = PrivateAttr(())  # the members that the preset has set

    def values_in_force(self) -> Iterator[tuple[str, object, str]]:
        """Yield the name of each setting in force, its value, and its origin, which is empty if it was given."""
        for name, value in self.model_dump(mode="json", exclude_none=True).items():
            origin = "" if name in self.model_fields_set else "default of the channel"
            yield name, value, f"preset {getattr(self, 'preset', '')}" if name in self._of_preset else origin


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
