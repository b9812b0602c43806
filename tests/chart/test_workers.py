"""Test the workers of the chart: how they stop, when they are rolled, and how many run."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from notifier.model.durations import parse_duration
from tools.chart_rendering import CHART, Rendered, template, values_file


def test_pods_live_longer_than_a_drain(rendered: Rendered) -> None:
    """Kubernetes kills no worker within `shutdown_grace` after `preStop`."""
    spec = rendered.worker()
    grace = parse_duration(rendered.config().get("shutdown_grace", "20s"))
    before = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert spec["terminationGracePeriodSeconds"] >= grace + before + 5


@pytest.mark.parametrize(
    ("values", "rolled"),
    [
        (
            (
                "{config: {issuers: {https://b.example.com: {keys: [{file: /etc/notifier/secrets/keys/b.pem}]}}},"
                " clients: [{client_id: shop, issuer: '*', backchannel_logout_uri: https://shop.example.com/}]}"
            ),
            False,
        ),
        ("config: {issuers: {https://id.example.com: {publishers: [idp]}}}", False),
        ("clients: [{client_id: forum, backchannel_logout_uri: https://forum.example.com/}]", False),
        ("config: {egress: {allow: [10.0.0.0/8]}}", False),
        ("config: {delivery: {timeout: 3s}}", False),
        ("config: {delivery: {max_in_flight: 64}}", True),
        ("config: {queue: {prefix: other}}", True),
        ("config: {log: {level: debug}}", True),
        ("config: {shutdown_grace: 21s}", True),
        ("config: {metrics: {max_clients: 10}}", True),
    ],
)
def test_pods_are_rolled_if_a_reload_is_not_enough(
    values: str, rolled: bool, tmp_path: Path, every: Mapping[str, Rendered]
) -> None:
    """Settings that a reload applies (docs/configuration.md) change no pod, settings read once change all."""
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(values)
    after = template(values_file("minimal"), "-f", str(overlay))
    assert after.returncode == 0, after.stderr
    [made] = [item for item in yaml.safe_load_all(after.stdout) if item and item["kind"] == "Deployment"]
    before = every["minimal"].workers()["spec"]["template"]
    assert (made["spec"]["template"] != before) is rolled


def test_what_is_read_once_is_known() -> None:
    """No setting that the chart treats as reloadable needs a restart in docs/configuration.md."""
    document = "".join(page.read_text() for page in (CHART.parents[1] / "docs/configuration").iterdir())
    read_once = re.findall(
        r"^\| `((?:issuers|egress|registry|delivery)[^`]*)` \| [^|]+ \| [^|]+ \| (?:yes|to name)",
        document,
        re.MULTILINE,
    )
    assert read_once == ["delivery.max_in_flight"]


def test_one_way_of_scaling_at_most(rendered: Rendered) -> None:
    """Never both KEDA and our autoscaler, and a number of replicas only if nothing else sets it."""
    scalers = [*rendered.all("HorizontalPodAutoscaler"), *rendered.all("ScaledObject")]
    assert len(scalers) <= 1
    assert ("replicas" in rendered.workers()["spec"]) is (not scalers)
    for scaler in scalers:
        spec: dict[str, Any] = scaler["spec"]
        assert spec["scaleTargetRef"]["name"] == rendered.workers()["metadata"]["name"]
        assert (spec.get("minReplicas") or spec["minReplicaCount"]) >= 2


def test_keda_counts_fresh_events_alone(every: Mapping[str, Rendered]) -> None:
    """By the management API, which counts unacknowledged messages too; retries of a dead client add no pod."""
    triggers = every["keda"].one("ScaledObject")["spec"]["triggers"]
    assert {trigger["metadata"]["queueName"] for trigger in triggers} == {"sso.events", "sso.bulk", "sso.source.shop"}
    for trigger in triggers:
        assert trigger["metricType"] == "AverageValue"
        assert trigger["metadata"]["protocol"] == "http"
        assert trigger["metadata"]["mode"] == "QueueLength"
        assert trigger["metadata"]["excludeUnacknowledged"] == "false"
        assert trigger["metadata"]["vhostName"] == "logout"
    [reference] = every["keda"].one("TriggerAuthentication")["spec"]["secretTargetRef"]
    assert reference == {"parameter": "host", "name": "rabbitmq-management", "key": "url"}


def test_the_network_policy_lets_workers_work(every: Mapping[str, Rendered]) -> None:
    """DNS, the broker and its API, each port in the URI of a client or JWKS, the canary's pod, nothing else."""
    policy = every["everything"].one("NetworkPolicy", "n-logout")["spec"]
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]
    assert ports == [[53, 53, 5353, 5353], [5671], [443, 80, 8444, 8445, 9443], [8080], [4318]]
    assert policy["egress"][3]["to"] == [
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "logout-canary", "app.kubernetes.io/instance": "n"}}}
    ]
    assert policy["egress"][1]["to"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "rabbitmq"}}}
    ]
    ops, api, web = policy["ingress"]
    assert [rule["ports"][0]["port"] for rule in (ops, api, web)] == [9000, 8443, 8090]
    assert web["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]
    assert ops["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    open_to_all = every["minimal"].one("NetworkPolicy", "n-notifier")["spec"]["egress"]
    assert [[port["port"] for port in rule["ports"]] for rule in open_to_all] == [
        [53, 53, 5353, 5353],
        [5672],
        [443],
        [8080],
    ]
    assert "to" in open_to_all[3]  # the canary's pod
    asked = every["signers"].one("NetworkPolicy")["spec"]["egress"][2]["ports"]
    assert [port["port"] for port in asked] == [443, 5443, 6443, 7443, 8200, 9444]  # of Vault and the upstream too
    operators = every["api"].one("NetworkPolicy")["spec"]["egress"][2]["ports"]
    assert [port["port"] for port in operators] == [443, 8446]  # where they sign in
    server = every["relay"].one("NetworkPolicy")["spec"]["egress"][2]["ports"]
    assert [port["port"] for port in server] == [443, 5556]  # whose keys a relay reads
    tls = every["broker-tls"].one("NetworkPolicy", "n-notifier")["spec"]
    assert [port["port"] for port in tls["egress"][1]["ports"]] == [5671, 5673]


def test_the_console_is_served_only_where_the_values_say_so(every: Mapping[str, Rendered]) -> None:
    """Otherwise no worker serves it and no route exists, also if the API is reachable from outside."""
    for name, rendered in every.items():
        served = rendered.config().get("api", {}).get("console", {"enabled": False})
        assert served["enabled"] is (name == "api")
        assert ("/console" in paths_of(rendered)) is (name == "api")
    assert "/v1/" in paths_of(every["everything"])
    assert paths_of(every["api"]) == ["/v1/", "/console"] * 2


def test_each_relay_has_a_route_at_the_host_of_its_keys(every: Mapping[str, Rendered]) -> None:
    """Two exact paths lead to the Service of `web`, without cookies; all others stay the identity server's."""
    route = every["relay"].one("HTTPRoute")
    assert route["metadata"]["name"] == "n-notifier-relay-dex"
    assert route["spec"]["hostnames"] == ["id.example.com"]
    found = {}
    for rule in route["spec"]["rules"]:
        [match], [rewritten, cookies] = rule["matches"], rule["filters"]
        assert match["path"]["type"] == "Exact"
        assert cookies["requestHeaderModifier"] == {"remove": ["Cookie"]}
        assert rule["backendRefs"] == [{"name": "n-notifier-web", "port": 8090}]
        found[match["path"]["value"]] = rewritten["urlRewrite"]["path"]["replaceFullPath"]
    assert found == {
        "/dex/keys": "/relays/dex/jwks",
        "/connect/notify/relays/dex/backchannel-logout": "/relays/dex/backchannel-logout",
    }


def paths_of(rendered: Rendered) -> list[str]:
    """Return the paths to the API from outside of the cluster."""
    rules = [rule for item in rendered.all("Ingress") for rule in item["spec"]["rules"]]
    matches = [
        match for item in rendered.all("HTTPRoute") for rule in item["spec"]["rules"] for match in rule["matches"]
    ]
    return [
        *(path["path"] for rule in rules for path in rule["http"]["paths"]),
        *(match["path"]["value"] for match in matches),
    ]


def test_ports_meet(rendered: Rendered) -> None:
    """Ports of services and probes exist in the container, and the workers listen there."""
    config = rendered.config()
    container = rendered.worker()["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    wanted = {name: int(config[name]["listen"].rpartition(":")[2]) for name in ("ops", "api", "web") if name in config}
    assert ports == wanted
    name = rendered.workers()["metadata"]["name"]
    services = {item["metadata"]["name"]: item["spec"] for item in rendered.all("Service")}
    assert [port["targetPort"] for port in services[f"{name}-ops"]["ports"]] == ["ops"]
    assert (name in services) is ("api" in wanted)
    assert (f"{name}-web" in services) is ("web" in wanted)


def test_only_the_api_is_published(every: Mapping[str, Rendered]) -> None:
    """A load balancer gets the API's port; pages and /metrics have internal services, and a monitor selects one."""
    everything = every["everything"]
    service = everything.one("Service", "n-logout")
    assert service["spec"]["type"] == "LoadBalancer"
    assert [port["name"] for port in service["spec"]["ports"]] == ["api"]
    ops = everything.one("Service", "-ops")
    assert ops["spec"].get("type", "ClusterIP") == "ClusterIP"
    web = everything.one("Service", "-web")
    assert web["spec"].get("type", "ClusterIP") == "ClusterIP"
    assert [port["targetPort"] for port in web["spec"]["ports"]] == ["web"]
    selector = everything.one("ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    selected = [item for item in everything.all("Service") if selector <= item["metadata"]["labels"].items()]
    assert selected == [ops]
