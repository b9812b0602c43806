"""Write configurations with registries for the command line."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.cli.in_process import notifier

ISS, OTHER = "https://id.example.com", "https://other.example.com"
URI = "https://shop.example.com/backchannel-logout"


def made(folder: Path) -> Path:
    """Create a signing key in the folder, and return the folder."""
    done = notifier("keys", "generate", "--alg", "RS256", "--out", "k.pem", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def write(folder: Path, registry: dict[str, Any], **files: list[dict[str, Any]]) -> None:
    """Write a configuration with this registry, and files of clients."""
    settings = {
        "queue": {"url": "amqp://mq.example.com/"},
        "issuers": {iss: {"keys": [{"file": "k.pem"}]} for iss in (ISS, OTHER)},
        "registry": registry,
    }
    (folder / "n.yaml").write_text(yaml.safe_dump(settings))
    for name, clients in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(clients))


def origins(folder: Path) -> dict[str, tuple[object, str]]:
    """Return each value of the client `shop` in force, and its origin."""
    done = notifier("clients", "show", "-c", "n.yaml", "--json", "shop", cwd=folder)
    assert done.returncode == 0, done.stderr
    [client] = json.loads(done.stdout)
    return {each["member"]: (each["value"], each["from"]) for each in client["values"]}
