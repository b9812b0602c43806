"""What a dead letter of an unknown client or issuer most likely meant, by the registry as it is now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from notifier.domain.outcome import DeadReason

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from notifier.domain.registry import Registry

NOBODY_KNOWS = frozenset({DeadReason.UNKNOWN_CLIENT, DeadReason.UNKNOWN_ISSUER})


def letter_hints(config: Path | None) -> Callable[[str, str], str | None]:
    """What tells the hint for an issuer and client. Sources that are not files are not asked: their caches do."""
    from notifier.adapters.configuration.config_file import load_settings
    from notifier.adapters.registries.answers import ReadNow
    from notifier.adapters.registries.clients_file import load_registry
    from notifier.domain.errors import ConfigurationError

    if config is None:
        return lambda _iss, _client_id: None
    try:
        registry = load_registry(load_settings(config, os.environ), ReadNow(offline=True))
    except ConfigurationError:  # `notifier check` tells of it
        return lambda _iss, _client_id: None
    return lambda iss, client_id: _hint(registry, iss, client_id)


def _hint(registry: Registry, iss: str, client_id: str) -> str | None:
    from notifier.domain.nearest import near_either

    found = near_either(iss, client_id, registry, known="it is registered now: notifier dead-letters replay")
    return None if found is None else found.text
