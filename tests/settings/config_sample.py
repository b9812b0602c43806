"""The documented sample configuration; write and read configurations in tests."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from notifier.model.errors import ConfigurationError
from notifier.settings.config_file import load_settings
from tests.settings.whole_settings import SETTINGS

SAMPLE = """
queue:                                       # or {url: "sqlite:notifier.db"}
  url: "amqp://localhost:5672/"              # or a list of hosts of one cluster
  username: notifier                         # here or in the URL; read again at each reconnect
  password_file: secrets/amqp
  tls: {ca_file: ca.pem, cert_file: c.pem, key_file: k.pem}
  prefix: notifier
  topology: declare                          # or verify
  prefetch: {bulk: 64}
ops:     {listen: "127.0.0.1:9464"}          # /livez /readyz /metrics; nothing secret
api:     {listen: "127.0.0.1:8080", tokens_file: tokens.yaml, tls: {cert_file: t.pem, key_file: t.key}}
issuers:
  "https://id.example.com":
    keys: [{file: keys/2026.pem, not_before: 2026-01-01T00:00:00Z}]
    jwks_uri: https://id.example.com/jwks    # polled: is our key still published?
    publishers: [idp]                        # left out: anyone who may publish
delivery: {timeout: 5s, max_in_flight: 512, max_age: 24h, sub_only_max_age: 10m, max_paused: 7d,
           retry: {base: 2s, max_delay: 1h}}
egress:  {allow: [], deny: [], allow_http: false}
registry: {file: clients.yaml, inline: allow, grace: 5m}
log:     {level: info, format: auto, subject: hash, subject_key_file: secrets/log}
metrics: {max_clients: 500}
outcomes: "off"                              # failures, all
shutdown_grace: 20s
"""
CLIENTS = """
- client_id: shop
  issuer: https://id.example.com          # or a list, or "*"; may be left out where there is only one issuer
  backchannel_logout_uri: https://shop.example.com/backchannel-logout?tenant=1
  backchannel_logout_session_required: true
  id_token_signed_response_alg: ES256
  notifier: {preset: spring, typ: logout+jwt, subject: sid, lifetime: 120s, max_concurrent: 8, timeout: 3s}
"""
NAMED = ("secrets/amqp", "ca.pem", "c.pem", "k.pem", "t.pem", "t.key", "keys/2026.pem", "secrets/log")


def sample(folder: Path) -> Path:
    """Write the sample with every file that it references."""
    for name in NAMED:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"text of {name}\n")
    (folder / "clients.yaml").write_text(CLIENTS)
    (folder / "tokens.yaml").write_text("- {name: idp, token: correct-horse, scopes: [publish, read]}\n")
    return write(folder, SAMPLE)


def write(folder: Path, text: str, name: str = "notifier.yaml") -> Path:
    """Write a file with this text."""
    path = folder / name
    path.write_text(text)
    return path


def require_single_mistake(folder: Path, text: str, path: str, expected: str) -> None:
    """Fail unless a configuration with this text has one error, at this path and with this phrase."""
    found = mistakes(write(folder, text))
    assert list(found) == [path]
    assert expected in found[path]


def mistakes(path: Path | None, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the errors by path."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, environ or {}, SETTINGS)
    return {mistake.path: mistake.text for mistake in caught.value.mistakes}
