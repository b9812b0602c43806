"""What the chart puts into the pods is what the service reads."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from notifier.configuration.loading import load
from notifier.features import FEATURES
from tests.chart.installed import install
from tools.chart_rendering import VALUE_FILES, Rendered

CANARY = "https://notifier-canary.invalid"
WITH_CANARY = {"minimal", "everything", "registry-sources"}


@pytest.mark.parametrize("name", VALUE_FILES)
def test_the_service_takes_the_configuration(name: str, every: Mapping[str, Rendered], tmp_path: Path) -> None:
    """Configuration, clients, keys and tokens have no error; the canary is one client, of its own issuer only."""
    environ = {
        variable["name"]: variable.get("value", "notifier")
        for variable in every[name].worker()["containers"][0].get("env", [])
    }
    loaded = load(install(every[name], tmp_path), environ, FEATURES)
    canary = loaded.registry.clients_of(CANARY)
    assert set(canary) == ({"notifier-canary"} if name in WITH_CANARY else set())
    for iss in loaded.settings.issuers.keys() - {CANARY}:
        assert loaded.registry.clients_of(iss)
        assert "notifier-canary" not in loaded.registry.clients_of(iss)
    for client in canary.values():
        assert any(client.token.alg in key.algorithms for key in loaded.keys.keys_of(CANARY))


def test_files_named_are_files_mounted(rendered: Rendered) -> None:
    """Each Secret is mounted where the configuration names it; into pods that read `queue` alone only the broker's."""
    text = yaml.safe_dump([rendered.files()])
    mounted = {mount["mountPath"] for mount in rendered.worker()["containers"][0]["volumeMounts"]}
    for folder in mounted:
        assert not folder.startswith("/etc/notifier/secrets/") or f"{folder}/" in text
    for pod in rendered.pods():
        mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        if pod["containers"][0]["name"] != "notifier":
            assert mounts <= {"config", "canary", "outcomes", "secret-broker", "secret-broker-tls", "registry"}
