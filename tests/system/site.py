"""The files of one installation for a system test, in a separate folder: configuration, clients, API tokens and keys.

A key's public half comes from joserfc, not from the service, so that a wrong `kid` or a wrong key shows. JSON is YAML.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from joserfc.jwk import import_key

from notifier.model.client import Algorithm
from notifier.tokens.key_files import generate_key
from tests.support.rabbit_options import BUCKETS

ISSUER = "https://id.example.com"
OTHER = "https://other.example.com"
API_TOKEN = "system-test-bearer-token-7f0c"


class Site:
    """What an operator would have on disk. Change `config`, then `write`."""

    def __init__(self, folder: Path, queue_url: str, prefix: str = "notifier") -> None:
        self.folder = folder
        self.queue_url = queue_url
        self.prefix = prefix
        self._jwks: dict[str, list[dict[str, Any]]] = {}
        queue: dict[str, Any] = {"url": queue_url}
        if queue_url.startswith("amqp"):
            queue |= {"prefix": prefix, "buckets": BUCKETS}
        self.config: dict[str, Any] = {
            "queue": queue,
            "ops": {"listen": "127.0.0.1:0"},
            "api": {"listen": "127.0.0.1:0", "tokens_file": "tokens.yaml"},
            "issuers": {},
            "delivery": {"retry": {"base": "1s", "max_delay": "1s"}},
            "egress": {"allow": ["127.0.0.0/8"], "allow_http": True},
            "registry": {"file": "clients.yaml", "grace": "1s"},
            "log": {"level": "debug", "format": "json"},
        }
        for iss in (ISSUER, OTHER):
            self.add_key(iss, f"{'other-' if iss == OTHER else ''}first.pem")
        tokens = [{"name": "idp", "token": API_TOKEN, "scopes": ["publish"]}]
        (folder / "tokens.yaml").write_text(json.dumps(tokens))
        self.write_clients([])
        self.write()

    @property
    def file(self) -> Path:
        """The configuration."""
        return self.folder / "notifier.yaml"

    def add_key(self, iss: str, name: str, algorithm: Algorithm = Algorithm.ES256, **more: object) -> str:
        """Make a key of the issuer's, and name it in the configuration (not written yet); returns its `kid`."""
        pem = generate_key(algorithm)
        (self.folder / name).write_bytes(pem)
        key = import_key(pem.decode(), "EC" if algorithm is Algorithm.ES256 else "RSA")
        kid = key.thumbprint()
        self._jwks.setdefault(iss, []).append({**key.as_dict(private=False), "kid": kid, "use": "sig"})
        self.config["issuers"].setdefault(iss, {"keys": []})["keys"].append({"file": name, **more})
        return kid

    def jwks(self, iss: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The public halves of the issuer's keys, as the issuer would publish them."""
        return {"keys": self._jwks[iss]}

    def serve_web(self, port: int = 0, **more: object) -> bytes:
        """Add a listener for browsers and upstreams (not written yet); the key by which its pages' URLs are sealed."""
        key = Fernet.generate_key()
        (self.folder / "web.keys").write_bytes(key)
        (self.folder / "web.keys").chmod(0o600)
        self.config["web"] = {"listen": f"127.0.0.1:{port}", "keys_file": "web.keys", **more}
        return key

    def write(self) -> None:
        """Write the configuration, at one stroke."""
        _replace(self.file, json.dumps(self.config))

    def write_clients(self, clients: Sequence[Mapping[str, object]]) -> None:
        """Write the registry, at one stroke."""
        _replace(self.folder / "clients.yaml", json.dumps(list(clients)))

    def secrets(self) -> list[str]:
        """Return the values that no output may contain: key material, the API token, the broker's password unless
        trivial.
        """
        found = [API_TOKEN, "PRIVATE KEY"]
        for path in self.folder.glob("*.pem"):
            found += [line for line in path.read_text().splitlines() if len(line) > 40]
        return found


def client(client_id: str, uri: str, issuer: str = ISSUER, **notifier: object) -> dict[str, object]:
    """A registration. ES256, since its signatures cost little where hundreds of thousands are made."""
    return {
        "client_id": client_id,
        "issuer": issuer,
        "backchannel_logout_uri": uri,
        "id_token_signed_response_alg": "ES256",
        "notifier": notifier,
    }


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    os.replace(part, path)  # noqa: PTH105  the name says what is meant: atomically
