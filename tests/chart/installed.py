"""The files of a pod, as the chart and the Secrets and volumes that it names would make them, in a folder of a test."""

import functools
import json
import re
from pathlib import Path

from cryptography.fernet import Fernet

from notifier.model.client import Algorithm
from notifier.tokens.key_files import generate_key
from tests.support.certificates import authority
from tools.chart_rendering import Rendered

REGISTRY = [{"client_id": "shop", "backchannel_logout_uri": "https://shop.example.com/"}]
OWN_REGISTRY = "/clients/clients.yaml"  # of own-registry-values.yaml


def install(rendered: Rendered, folder: Path) -> Path:
    """Write them and return the configuration. Its paths lead into `folder`; each Secret has what fits its name."""
    etc = folder / "config"
    etc.mkdir()
    (folder / "clients.yaml").write_text(json.dumps(REGISTRY))
    certificate = authority(folder / "authority").issue("localhost").read_bytes()  # with its key
    for name, text in rendered.files().items():
        here = text.replace("/etc/notifier", str(folder)).replace(OWN_REGISTRY, str(folder / "clients.yaml"))
        here = here.replace("/opt/hsm/libhsm.so", __file__)  # it is looked for, and loaded later
        (etc / name).write_text(here)
        for path in map(Path, re.findall(rf"{re.escape(str(folder))}/secrets/[^\s\"']+", here)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_secret(path.name, certificate))
    return etc / "notifier.yaml"


def _secret(name: str, certificate: bytes) -> bytes:
    if name == "tokens.yaml":
        return json.dumps([{"name": "idp", "token": "a-token", "scopes": ["publish"]}]).encode()
    if name.endswith("keys"):
        return Fernet.generate_key()
    if name.endswith((".crt", ".key")):
        return certificate
    return _key(name) if name.endswith(".pem") else b"a-secret"


@functools.cache
def _key(_name: str) -> bytes:
    """One a name, since each key of an issuer must be another."""
    return generate_key(Algorithm.RS256)
