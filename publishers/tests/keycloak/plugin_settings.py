"""What the plug-in is set to in tests, in its own spelling."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PREFIX = "--spi-notifier--publisher--"


def plugin_options(settings: Mapping[str, object]) -> Sequence[str]:
    """As `kc.sh start` takes them."""
    return [f"{PREFIX}{name}={value}" for name, value in settings.items()]


def plugin_settings(amqp_url: str, prefix: str, folder: Path, **more: object) -> Mapping[str, object]:
    """To publish to the exchanges of this prefix, with an outbox in the folder."""
    password = urlsplit(amqp_url).password or ""
    secret_file = folder / "broker-password"
    secret_file.write_text(password)
    secret_file.chmod(0o600)
    return {
        "url": amqp_url.replace(f":{password}@", "@"),
        "secret-file": secret_file,
        "outbox-folder": folder / "outbox",
        "exchange": f"{prefix}.events",
        "bulk-exchange": f"{prefix}.bulk",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


def key_component(realm_id: str, keys: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """notifier's public keys as a component of the realm."""
    return {
        "name": "notifier",
        "providerId": "notifier-public-keys",
        "providerType": "org.keycloak.keys.KeyProvider",
        "parentId": realm_id,
        "config": {"keys": [json.dumps({"keys": keys})]},
    }
