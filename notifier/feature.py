"""The seam: what a feature adds to notifier. `notifier.features` lists them; `service` and `cli` go over the list."""

from dataclasses import dataclass

from notifier.configuration.configured_feature import ConfiguredFeature


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature(ConfiguredFeature):
    """A feature. Each member is what it adds, nothing unless given."""
