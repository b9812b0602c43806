"""Builds the reader of a registry source. Each kind is imported only where it is used: some need extra libraries."""

from typing import Protocol

from notifier.domain.client_rows import Answer
from notifier.settings.registry_settings import RegistrySourceSettings


class ClientsReader(Protocol):
    """Reads all clients of one source, as often as it is asked."""

    async def read(self, last: Answer | None) -> Answer:
        """Return what the source holds now; `last` itself (the same object) if the source says that nothing changed.

        It runs in a thread and an event loop of its own, so it may block, and it ends by itself within the source's
        `timeout`. Secrets are read from their files each time. Raises SourceFault.
        """


def build_reader(source: RegistrySourceSettings) -> ClientsReader:
    """Return the reader of a source that is not a file."""
    match source.kind:
        case kind:
            raise NotImplementedError(kind)
