"""Reads clients files, and builds the registry from them and from the answers of other registry sources."""

import dataclasses
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from notifier.configuration.clients.aliases import aliases_of
from notifier.configuration.clients.authority import Authority
from notifier.configuration.clients.client_metadata import RegistryBuilder
from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.followers import is_follower_row
from notifier.configuration.clients.layer import BuildContext, BuiltRegistry, Layer
from notifier.configuration.clients.layers import build_registry
from notifier.configuration.clients.route_grants import find_default_errors
from notifier.model.client import Algorithm
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.nearest import explain_unknown_issuer
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.settings.document_files import read_document
from notifier.settings.registry_settings import RegistrySourceSettings
from notifier.settings.service_settings import Settings

SWITCH_SECONDS = sys.getswitchinterval()  # a thread runs so long before another is scheduled
SHORT_SWITCH_SECONDS = 0.0005
MIN_FROZEN_OBJECTS = 50_000  # the collector needs more than a few milliseconds to search so many objects for cycles

AnswerOf = Callable[[RegistrySourceSettings, Path | None], SourceAnswer | None]
"""Returns the last answer of a source that is not a file, given the source and the folder of the cache.

It returns None if there is no answer, and may raise ConfigurationError.
"""


def no_answer(_source: RegistrySourceSettings, _folder: Path | None) -> None:
    """Return None, for configurations with files only."""


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Disable the garbage collector while many clients are read: its searches would take a third of the time.

    At the end, many new objects are frozen, since each later search of them would block a worker's loop for 100 ms.
    Meanwhile threads are switched more often, because the event loop releases the GIL at each system call.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    sys.setswitchinterval(SHORT_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(SWITCH_SECONDS)
        if gc.get_count()[0] > MIN_FROZEN_OBJECTS:
            gc.freeze()
        if was_enabled:
            gc.enable()


def _find_issuer_errors(settings: Settings) -> Iterator[InputIssue]:
    """Yield errors in the issuers and defaults of `registry`."""
    known = settings.issuers
    for nth, source in enumerate(settings.registry.sources):
        source_issuers = source.permitted_issuers(tuple(known))
        if not source_issuers and source.file is None:
            text = (
                f"is required, since there are {len(known)} issuers: write issuer: {next(iter(known), 'ISS')} if it may"
                f" have the clients of that one alone, or issuers: [{', '.join(known)}]"
            )
            yield InputIssue(f"registry.sources[{nth}].issuer", text)
        for iss in source_issuers:
            if iss not in known:
                member = "issuers" if source.issuers else "issuer"
                yield InputIssue(f"registry.sources[{nth}].{member}", explain_unknown_issuer(iss, known))
    for iss in settings.registry.defaults.keys() - known.keys():
        yield InputIssue(f'registry.defaults["{iss}"]', explain_unknown_issuer(iss, known))
    yield from find_default_errors(settings.registry.defaults, settings.template().retry)


def _read_layers(
    build_context: BuildContext, files: set[Path], answer_of: AnswerOf
) -> tuple[list[Layer], list[InputIssue]]:
    """Return the layers and all errors of the files. Adds each file that is read or named to `files`."""
    settings = build_context.settings
    layers: list[Layer] = []
    mistakes = [] if build_context.invalid_sections & {"issuers", "registry"} else list(_find_issuer_errors(settings))
    cache = settings.registry.cache
    for source in settings.registry.all_sources:
        try:
            if source.file is None:
                layers.append(to_layer(source, tuple(settings.issuers), answer_of(source, cache)))
            else:
                layers.append(_read(source, files))
        except ConfigurationError as error:
            mistakes += error.mistakes
    return layers, mistakes


def to_layer(source: RegistrySourceSettings, issuers: Sequence[str], answer: SourceAnswer | None) -> Layer:
    """Return the layer of a source that is not a file, given the configured issuers."""
    rows, faults = ((), ()) if answer is None else (answer.rows, answer.faults)
    source_issuers = source.permitted_issuers(issuers)
    return Layer(
        name=source.source_name, rows=rows, issuer=source_issuers[0] if len(source_issuers) == 1 else None, context={},
        faults=faults, authority=Authority(issuers=source_issuers, clients=source.clients), read=answer is not None,
        may_be_empty=source.empty,
    )  # fmt: skip


def load_registry(settings: Settings, answer_of: AnswerOf = no_answer) -> Registry:
    """Return the registry of these settings, without checks of signing keys. Raises ConfigurationError."""
    build_context = BuildContext(settings=settings, algorithms_of=lambda _: frozenset(Algorithm))
    built, _ = read_registry(build_context, set(), answer_of)
    if built.mistakes:
        raise ConfigurationError(built.mistakes)
    return built.registry


def read_registry(
    build_context: BuildContext, files: set[Path], answer_of: AnswerOf, *, keep_rows: bool = False
) -> tuple[BuiltRegistry, Sequence[Layer]]:
    """Return the registry of the valid clients with all errors, and the layers.

    The rows of a single file are freed, and the second result is empty, unless `keep_rows` or a row is a follower.
    Adds each file that is read or named to `files`.
    """
    with pause_garbage_collection():
        layers, mistakes = _read_layers(build_context, files, answer_of)
        is_one_file = len(layers) == 1 and layers[0].file is not None
        if is_one_file and not keep_rows and not any(map(is_follower_row, layers[0].rows)):
            built = _build_from_file(build_context, layers.pop())
        else:
            built = build_registry(build_context, layers)
    return copy_record(built, mistakes=[*mistakes, *built.mistakes]), layers


def _build_from_file(build_context: BuildContext, layer: Layer) -> BuiltRegistry:
    """Return the registry of a single file. The rows are freed one by one, since no refresh will need them."""
    builder = RegistryBuilder(build_context.settings, build_context.invalid_sections)
    aliases, taken = aliases_of([layer], {}, tuple(build_context.settings.issuers), lambda: None)
    rows = layer.rows
    assert isinstance(rows, list)
    context = dict(layer.context)
    for index, raw in enumerate(rows):
        if layer.issuer is not None and isinstance(raw, dict):
            raw.setdefault("issuer", layer.issuer)
        builder.add(raw, layer.path(index), context)
        builder.mistakes.bound()
        builder.warnings.bound()
        rows[index] = None  # freeing all rows at the end would block the event loop
    registry = dataclasses.replace(builder.registry(), aliases=aliases, taken_aliases=taken)
    return BuiltRegistry(
        registry=registry,
        mistakes=builder.mistakes.abridged(),
        warnings=builder.warnings.abridged(),
        unusable_files=builder.unusable_files,
    )


def _read(source: RegistrySourceSettings, files: set[Path]) -> Layer:
    assert source.file is not None
    path = source.file.absolute()
    files.add(path)
    document = read_document(path)
    if not isinstance(document, list):
        empty = "is empty; write [] if there are no clients" if document is None else "must be a list of clients"
        raise ConfigurationError([InputIssue(path.name, empty)])
    context = {"base": path.parent, "files": files}
    return Layer(name=source.source_name, rows=document, issuer=source.issuer, context=context, file=path.name)
