"""deploy/compose.yaml: what it mounts is there, what is scraped is a service, nothing listens beyond this machine."""

from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def read(name: str) -> Any:
    """One of its files."""
    return yaml.safe_load((DEPLOY / "compose" / name).read_text())


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there_and_cannot_be_written(name: str) -> None:
    """A folder that is missing would be made by docker, as root's, and empty."""
    for volume in SERVICES[name].get("volumes", ()):
        if volume.startswith("./"):
            source, _, mode = volume.split(":")
            assert (DEPLOY / source).exists(), volume
            assert mode == "ro"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_and_listens_on_loopback_alone(name: str) -> None:
    """Its password is known to everybody."""
    _, _, tag = SERVICES[name]["image"].partition(":")
    assert tag not in ("", "latest")
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


def test_every_address_in_the_files_is_a_service() -> None:
    """The scraped services, the receivers of alerts, the broker, the clients, and Grafana's source."""
    prometheus = read("prometheus.yaml")
    configs = [*prometheus["scrape_configs"], *prometheus["alerting"]["alertmanagers"]]
    hosts = {
        target.partition(":")[0] for one in configs for each in one["static_configs"] for target in each["targets"]
    }
    uris = [each["backchannel_logout_uri"] for each in read("clients.yaml")]
    uris += [
        read("notifier.yaml")["queue"]["url"],
        *(each["url"] for each in read("grafana/datasources.yaml")["datasources"]),
    ]
    hosts |= {uri.partition("//")[2].partition(":")[0] for uri in uris}
    assert hosts == SERVICES.keys() & hosts
    assert {"worker-1", "worker-2", "rabbitmq", "alertmanager", "prometheus", "shop", "clients"} == hosts


def test_our_processes_may_do_nothing_but_their_work() -> None:
    """No root file system to write, no capability, no way to more; and time to drain."""
    for name in ("worker-1", "worker-2", "shop", "clients", "sign-outs"):
        assert SERVICES[name]["read_only"]
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    assert SERVICES["worker-1"]["stop_grace_period"] == "30s"
