"""Declares what a feature adds to the configuration: a part, kinds of registry sources and kinds of signers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from notifier.model.errors import ConfigurationError, InputIssue

if TYPE_CHECKING:
    from pathlib import Path

    from notifier.configuration.clients.client_rows import BuildReader, ClientsReader
    from notifier.configuration.inline_senders import Sender
    from notifier.model.documents.sourced import ReadAgain
    from notifier.model.message import Binding
    from notifier.model.registry import Registry
    from notifier.settings.registry_settings import RegistrySourceSettings
    from notifier.settings.service_settings import Settings
    from notifier.tokens.signers import KeyKind


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturePart:
    """The configuration of a feature. A feature may add further members.

    `secrets`: files with secrets, by the setting that names each. `fixed`: values that need a restart to change, by
    setting. `bindings`: exchanges of other applications. `senders`: the senders of events through this feature.
    """

    mistakes: Sequence[InputIssue] = ()
    warnings: Sequence[InputIssue] = ()
    secrets: Mapping[str, Path | None] = field(default_factory=dict)
    fixed: Mapping[str, object] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    senders: Sequence[Sender] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredFeature:
    """The configuration side of a feature. The feature's modules are imported on first use.

    `sections` maps the path of each section of the settings to its `module:Class`. `client_options` is the
    `module:Class` of a section whose members a client has under `notifier`; `Client.option` returns their values.
    `read` gets the settings, the registry, and the names of invalid sections. `bindings` finds the bindings in a
    document of settings without opening the files that it names. `read_again` returns the readers that parse messages
    of sources for a replay, by name; without settings they trust the messages. `registry_kinds` has a reader of
    clients for each kind of registry source. `key_kinds` makes the key factories of each kind of signer; each worker
    and command calls it once.
    """

    name: str
    sections: Mapping[str, str] = field(default_factory=dict)
    client_options: str | None = None
    read: Callable[[Settings, Registry, frozenset[str]], FeaturePart] = lambda _settings, _registry, _unsure: (
        FeaturePart()
    )
    bindings: Callable[[Mapping[str, Any]], tuple[Binding, ...]] = lambda _document: ()
    read_again: Callable[[Settings | None], Mapping[str, ReadAgain]] = lambda _settings: {}
    registry_kinds: Mapping[str, BuildReader] = field(default_factory=dict)
    key_kinds: Callable[[], Mapping[str, KeyKind]] = dict


def settings_model(features: Sequence[ConfiguredFeature]) -> type[Settings]:
    """Return the type of the settings, with the sections and client options of these features."""
    from notifier.settings.feature_sections import build_settings_model  # noqa: PLC0415  pydantic takes 0.1 s

    sections = tuple(section for feature in features for section in feature.sections.items())
    return build_settings_model(sections, tuple(filter(None, (feature.client_options for feature in features))))


def reader_builder(features: Sequence[ConfiguredFeature]) -> BuildReader:
    """Return the function that builds the reader of a registry source of any kind except `file`."""
    kinds = {kind: build for feature in features for kind, build in feature.registry_kinds.items()}

    def build(source: RegistrySourceSettings) -> ClientsReader:
        if source.kind not in kinds:
            issue = InputIssue(
                f"registry.sources.{source.called}.{source.kind}", "is read by no feature of this release"
            )
            raise ConfigurationError([issue])
        return kinds[source.kind](source)

    return build


def readers_of(features: Sequence[ConfiguredFeature], settings: Settings | None) -> Mapping[str, ReadAgain]:
    """Return the readers that parse messages of sources for a replay, by name."""
    return {name: read for feature in features for name, read in feature.read_again(settings).items()}


def bindings_in(features: Sequence[ConfiguredFeature], document: Mapping[str, Any]) -> tuple[Binding, ...]:
    """Return the bindings to exchanges of other applications in a document of settings. Raises ConfigurationError."""
    return tuple(binding for feature in features for binding in feature.bindings(document))


def key_kinds_of(features: Sequence[ConfiguredFeature]) -> Mapping[str, KeyKind]:
    """Return the key factories of all kinds of signers."""
    return {kind: place for feature in features for kind, place in feature.key_kinds().items()}
