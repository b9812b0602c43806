"""The files with which a worker proves itself to registries are looked after like its own secrets."""

from pathlib import Path

from notifier.configuration.secret_files import secrets_of
from notifier.model.registry import Registry
from tests.settings.whole_settings import SETTINGS


def test_the_secret_of_a_source_is_one_of_the_secrets(tmp_path: Path) -> None:
    """By the setting that names it."""
    (tmp_path / "keycloak").write_text("secret")
    keycloak = {"url": "https://kc.example.com", "realm": "demo", "client_id": "notifier"}
    keycloak["client_secret_file"] = str(tmp_path / "keycloak")
    settings = SETTINGS.model_validate({"registry": {"sources": [{"keycloak": keycloak}]}})
    found = secrets_of(settings, Registry(), ())
    assert found == {"registry.sources.keycloak.keycloak.client_secret_file": tmp_path / "keycloak"}
