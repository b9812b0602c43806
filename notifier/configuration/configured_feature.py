"""Declares what a feature adds to the configuration: its own part, and kinds of registry sources and of key places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from notifier.configuration.clients.client_rows import BuildReader
    from notifier.configuration.inline_speakers import Sender
    from notifier.model.documents.sourced import ReadAgain
    from notifier.model.errors import Mistake
    from notifier.model.message import Binding
    from notifier.model.registry import Registry
    from notifier.settings.service_settings import Settings
    from notifier.tokens.places import KeyKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a feature has read of the configuration. A feature may add members of its own.

    `secrets`: files that nobody else may read, by the setting that names each. `fixed`: values that only a
    restart takes, by their setting. `bindings`: exchanges of others. `senders`: who sends events by this feature.
    """

    mistakes: Sequence[Mistake] = ()
    warnings: Sequence[Mistake] = ()
    secrets: Mapping[str, Path | None] = field(default_factory=dict)
    fixed: Mapping[str, object] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    senders: Sequence[Sender] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredFeature:
    """A feature, as far as the configuration knows it. Nothing of it is imported before it is asked for.

    `sections` names its sections of the settings by path, each as `module:Class`. `client_options` names a section
    likewise whose members a client has under `notifier`; `Client.option` returns the value of one. `read` gets the
    settings, the registry, and the sections of the settings that are wrong. `bindings` finds those in a document of
    settings whose files nobody may look at. `read_again` gives the readers that read messages of sources for a replay,
    by name; without settings they trust the messages. `registry_kinds` has a reader of clients for each kind of
    registry source. `key_kinds` gives the makers of keys for each kind of place, anew for each worker and command.
    """

    name: str
    sections: Mapping[str, str] = field(default_factory=dict)
    client_options: str | None = None
    read: Callable[[Settings, Registry, frozenset[str]], Part] = lambda _settings, _registry, _unsure: Part()
    bindings: Callable[[Mapping[str, Any]], tuple[Binding, ...]] = lambda _document: ()
    read_again: Callable[[Settings | None], Mapping[str, ReadAgain]] = lambda _settings: {}
    registry_kinds: Mapping[str, BuildReader] = field(default_factory=dict)
    key_kinds: Callable[[], Mapping[str, KeyKind]] = dict


def settings_model(features: Sequence[ConfiguredFeature]) -> type[Settings]:
    """Return the type of the settings, with the sections and client options of these features."""
    from notifier.settings.feature_sections import settings_with  # noqa: PLC0415  pydantic takes 0.1 s

    sections = tuple(section for feature in features for section in feature.sections.items())
    return settings_with(sections, tuple(filter(None, (feature.client_options for feature in features))))


def reader_by(features: Sequence[ConfiguredFeature]) -> BuildReader:
    """Return what makes the reader of any registry source that is not a file."""
    kinds = {kind: build for feature in features for kind, build in feature.registry_kinds.items()}
    return lambda source: kinds[source.kind](source)


def readers_of(features: Sequence[ConfiguredFeature], settings: Settings | None) -> Mapping[str, ReadAgain]:
    """Return the readers of messages of sources for a replay, by name."""
    return {name: read for feature in features for name, read in feature.read_again(settings).items()}


def bindings_in(features: Sequence[ConfiguredFeature], document: Mapping[str, Any]) -> tuple[Binding, ...]:
    """The exchanges of others that a document of settings binds. Raises ConfigurationError."""
    return tuple(binding for feature in features for binding in feature.bindings(document))


def key_kinds_of(features: Sequence[ConfiguredFeature]) -> Mapping[str, KeyKind]:
    """All kinds of places of keys."""
    return {kind: place for feature in features for kind, place in feature.key_kinds().items()}
