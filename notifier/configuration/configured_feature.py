"""Defines `ConfiguredFeature`: the settings, kinds of registry sources and kinds of signers that a feature adds."""

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
    """The configuration of one feature. Features derive classes from it that have further members.

    `secrets`: files with secrets, by the setting that names each. `fixed`: values that need a restart to change, by
    setting. `bindings`: the exchanges of other applications to bind the queue to. `senders`: the senders whose events
    arrive through this feature. `jti_prefixes`: by issuer, the first characters of the `jti` of its logout tokens.
    """

    mistakes: Sequence[InputIssue] = ()
    warnings: Sequence[InputIssue] = ()
    secrets: Mapping[str, Path | None] = field(default_factory=dict)
    fixed: Mapping[str, object] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    senders: Sequence[Sender] = ()
    jti_prefixes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredFeature:
    """The additions of a feature to the configuration. The feature's modules are imported on first use.

    `sections` maps the path of each section of the settings to its `module:Class`. `client_options`: the
    `module:Class` of a section whose members a client has under `notifier`. `Client.option` returns their values.
    `read` returns the feature's part, given the settings, the registry, and the names of invalid sections. `bindings`
    returns the bindings in a document of settings, without opening the files named there. `read_again` returns the
    functions that parse the messages of sources again for a replay, by source name. Without settings these functions
    do not verify the messages. `registry_kinds` maps each kind of registry source to a function that builds its reader.
    `key_kinds` returns the key factory of each kind of signer. Each worker and command calls it once.
    """

    name: str
    sections: Mapping[str, str] = field(default_factory=dict)
    client_options: str | None = None
    read: Callable[[Settings, Registry, frozenset[str]], FeaturePart] = lambda _settings, _registry, _invalid: (
        FeaturePart()
    )
    bindings: Callable[[Mapping[str, Any]], tuple[Binding, ...]] = lambda _document: ()
    read_again: Callable[[Settings | None], Mapping[str, ReadAgain]] = lambda _settings: {}
    registry_kinds: Mapping[str, BuildReader] = field(default_factory=dict)
    key_kinds: Callable[[], Mapping[str, KeyKind]] = dict


def merge_jti_prefixes(parts: Sequence[FeaturePart]) -> Mapping[str, str]:
    """Return the first characters of the `jti` of logout tokens, by issuer."""
    return {iss: prefix for part in parts for iss, prefix in part.jti_prefixes.items()}


def settings_model(features: Sequence[ConfiguredFeature]) -> type[Settings]:
    """Return the type of the settings, with the sections and client options of these features."""
    from notifier.settings.feature_sections import build_settings_model  # noqa: PLC0415  pydantic takes 0.1 s

    sections = tuple(section for feature in features for section in feature.sections.items())
    client_options = tuple(feature.client_options for feature in features if feature.client_options is not None)
    return build_settings_model(sections, client_options)


def reader_builder(features: Sequence[ConfiguredFeature]) -> BuildReader:
    """Return a function that builds the reader of a registry source of any kind except `file`.

    The function raises ConfigurationError if no feature reads the kind of the source.
    """
    builders = {kind: build for feature in features for kind, build in feature.registry_kinds.items()}

    def build_reader(source: RegistrySourceSettings) -> ClientsReader:
        if source.kind not in builders:
            setting = f"registry.sources.{source.source_name}.{source.kind}"
            raise ConfigurationError([InputIssue(setting, "is read by no feature of this release")])
        return builders[source.kind](source)

    return build_reader


def readers_of(features: Sequence[ConfiguredFeature], settings: Settings | None) -> Mapping[str, ReadAgain]:
    """Return the functions that parse the messages of sources again for a replay, by source name."""
    return {name: read for feature in features for name, read in feature.read_again(settings).items()}


def bindings_in(features: Sequence[ConfiguredFeature], document: Mapping[str, Any]) -> tuple[Binding, ...]:
    """Return the bindings to exchanges of other applications in a document of settings. Raises ConfigurationError."""
    return tuple(binding for feature in features for binding in feature.bindings(document))


def key_kinds_of(features: Sequence[ConfiguredFeature]) -> Mapping[str, KeyKind]:
    """Return the key factory of each kind of signer."""
    return {kind: factory for feature in features for kind, factory in feature.key_kinds().items()}
