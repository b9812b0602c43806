"""Write and read clients files in tests."""

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.clients.clients_file import load_registry
from notifier.model.client import Client
from notifier.model.errors import ConfigurationError
from notifier.model.registry import Registry
from notifier.settings.config_file import load_settings
from notifier.settings.service_settings import Settings
from tests.settings.whole_settings import SETTINGS

ONE = "https://id.example.com"
TWO = "https://login.example.org"
HOOK = "https://shop.example.com/hook"


def settings(folder: Path, clients: str, *issuers: str, **sections: Any) -> Settings:
    """Return the settings of a service with these issuers (by default one), this clients file and these sections."""
    (folder / "key.pem").write_text("a key")
    (folder / "clients.yaml").write_text(clients)
    document = {
        "issuers": {iss: {"keys": [{"file": "key.pem"}]} for iss in issuers or (ONE,)},
        "registry": {"file": "clients.yaml"},
        **sections,
    }
    (folder / "notifier.json").write_text(json.dumps(document))
    return load_settings(folder / "notifier.json", {}, SETTINGS)


def registry(folder: Path, clients: str, *issuers: str, **sections: Any) -> Registry:
    """Return the registry of such a service."""
    return load_registry(settings(folder, clients, *issuers, **sections))


def shop(folder: Path, notifier: str = "{}", **sections: Any) -> Client:
    """Return the only client, with these settings under `notifier`."""
    text = f"[{{client_id: shop, backchannel_logout_uri: '{HOOK}', notifier: {notifier}}}]"
    return registry(folder, text, **sections).clients_of(ONE)["shop"]


def count_calls(function: Callable[..., object], *arguments: object) -> int:
    """Return the number of calls and returns during a call of `function`: a cost that is the same in each run."""
    calls = itertools.count()
    sys.setprofile(lambda *_: next(calls) and None)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return next(calls)


def mistakes(folder: Path, clients: str, *issuers: str, **sections: Any) -> dict[str, str]:
    """Return the errors by path."""
    with pytest.raises(ConfigurationError) as caught:
        registry(folder, clients, *issuers, **sections)
    return {mistake.path: mistake.text for mistake in caught.value.mistakes}
