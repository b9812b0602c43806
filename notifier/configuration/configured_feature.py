"""What a feature brings to the configuration: kinds of registry sources and of places of keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from notifier.configuration.clients.client_rows import BuildReader
    from notifier.tokens.places import KeyKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredFeature:
    """A feature, as far as the configuration knows it. Nothing of it is imported before it is asked for.

    `registry_kinds`: how the clients of a registry source of this kind are read. `key_kinds` makes what makes the keys
    in this kind of place, anew for each worker and command.
    """

    name: str
    registry_kinds: Mapping[str, BuildReader] = field(default_factory=dict)
    key_kinds: Callable[[], Mapping[str, KeyKind]] = dict


def reader_by(features: Sequence[ConfiguredFeature]) -> BuildReader:
    """Makes the reader of any registry source that is not a file."""
    kinds = {kind: build for each in features for kind, build in each.registry_kinds.items()}
    return lambda source: kinds[source.kind](source)


def key_kinds_of(features: Sequence[ConfiguredFeature]) -> Mapping[str, KeyKind]:
    """All kinds of places of keys."""
    return {kind: made for each in features for kind, made in each.key_kinds().items()}
