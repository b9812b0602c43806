"""The feature `key_places`: keys that sign and leave their place never, in HSMs, Vault and the clouds' key services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.feature import Feature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notifier.tokens.places import KeyKind


def _kinds() -> Mapping[str, KeyKind]:
    from notifier.features.key_places.key_kinds import key_kinds

    return key_kinds()


KEY_PLACES = Feature(name="key_places", key_kinds=_kinds)
