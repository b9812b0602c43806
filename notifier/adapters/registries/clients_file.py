"""Reads the clients file (`registry.file`) into a registry."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from notifier.adapters.configuration.document_files import read_document
from notifier.adapters.registries.client_metadata import RegistryBuilder
from notifier.domain.errors import ConfigurationError, Mistake
from notifier.domain.registry import Registry
from notifier.settings.service_settings import Settings

MANY = 50_000  # the collector takes more than a few milliseconds to search so many objects for cycles


def load_registry(settings: Settings) -> Registry:
    """The clients as registered now. Raises ConfigurationError with every mistake."""
    registry, mistakes, _ = read_registry(settings, set())
    if mistakes:
        raise ConfigurationError(mistakes)
    return registry


def read_registry(
    settings: Settings, files: set[Path], unsure: frozenset[str] = frozenset()
) -> tuple[Registry, list[Mistake], list[Mistake]]:
    """The clients that are right, every mistake, and every warning. Adds each file that is read or named to `files`.

    `unsure`: the sections of the settings that are wrong. What depends on them is not judged.
    """
    builder = RegistryBuilder(settings, unsure)
    if settings.registry.file is not None:
        with _no_collections():
            try:
                _read(settings.registry.file.absolute(), builder, files)
            except ConfigurationError as error:
                builder.mistakes += error.mistakes
    return builder.registry(), builder.mistakes, builder.warnings


def _read(path: Path, builder: RegistryBuilder, files: set[Path]) -> None:
    files.add(path)
    document = read_document(path)
    if not isinstance(document, list):
        empty = "is empty; write [] if there are no clients" if document is None else "must be a list of clients"
        raise ConfigurationError([Mistake(path.name, empty)])
    context = {"base": path.parent, "files": files}
    for index, raw in enumerate(document):
        builder.add(raw, f"{path.name}[{index}]", context)
        document[index] = None  # to free all of them at the end would be one long step that holds up the event loop


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keeps the garbage collector off: millions of objects are made, none is garbage, and to search them is a third of
    the time. Many objects are also left out of later searches, each of which would hold up a worker's loop for 100 ms.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] > MANY:
            gc.freeze()
        if enabled:
            gc.enable()
