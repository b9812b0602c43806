"""A wrong value is refused when one installs, with a text that names it, and not met in a pod that does not start."""

from pathlib import Path

import pytest

from tools.chart_rendering import VALUES, template

WRONG_KIND = [  # refused by values.schema.json
    ("replicas: 3", "Additional property replicas is not allowed"),
    ("replicaCount: two", "replicaCount: Invalid type"),
    ("replicaCount: 0", "replicaCount: Must be greater than or equal to 1"),
    ("image: {tag: 1.0}", "image.tag: Invalid type"),
    ("image: {digest: sha256:abc}", "image.digest: Does not match pattern"),
    ("config: {queue: {urls: amqp://mq}}", "config.queue: Additional property urls is not allowed"),
    ("config: {delivery: {timeout: 5}}", "config.delivery.timeout: Invalid type"),
    ("config: {delivery: {timeout: 5 minutes}}", "config.delivery.timeout: Does not match pattern"),
    ("config: {issuers: null}", "config.issuers: Invalid type"),
    ("config: {queue: null}", "config.queue: Invalid type"),
    ("config: {issuers: {https://b.example.com: {keys: []}}}", "Array must have at least 1 items"),
    ("clients: {shop: https://shop.example.com}", "clients: Invalid type"),
    ("clients: [{backchannel_logout_uri: https://shop.example.com}]", "clients.0: client_id is required"),
    ("clients: [{client_id: shop, id_token_signed_response_alg: HS256}]", "id_token_signed_response_alg"),
    ("clients: [{client_id: shop, notifier: {presets: spring}}]", "presets is not allowed"),
    ("secrets: [broker]", "secrets: Invalid type"),
    ("secrets: {../etc: broker}", "Property name of"),
    ("secrets: {broker: {name: broker}}", "secrets.broker: Invalid type"),
    ("externalSecrets: [{name: a, secretStoreRef: {name: vault}}]", "data is required"),
    ("env: [{value: a}]", "env.0: name is required"),
    ("podSecurityContext: {runAsNonRoot: false}", "podSecurityContext.runAsNonRoot"),
    ("podSecurityContext: {runAsUser: 0}", "podSecurityContext.runAsUser"),
    ("podSecurityContext: {seccompProfile: {type: Unconfined}}", "podSecurityContext.seccompProfile.type"),
    ("securityContext: {readOnlyRootFilesystem: false}", "securityContext.readOnlyRootFilesystem"),
    ("securityContext: {capabilities: {add: [NET_ADMIN]}}", "Additional property add is not allowed"),
    ("securityContext: {privileged: true}", "securityContext.privileged"),
    ("autoscaling: {kind: both}", "autoscaling.kind"),
    ("autoscaling: {kind: hpa, minReplicas: 1}", "autoscaling.minReplicas: Must be greater than or equal to 2"),
    ("autoscaling: {keda: {queues: [dead]}}", "Additional property queues is not allowed"),
    ("autoscaling: {scaleDownAfterSeconds: 5}", "autoscaling.scaleDownAfterSeconds"),
    ("ingress: {enabled: true}", "ingress.host: String length must be greater than or equal to 1"),
    ("metrics: {monitor: Prometheus}", "metrics.monitor"),
    ("networkPolicy: {clientPorts: [https]}", "networkPolicy.clientPorts.0: Invalid type"),
    ("networkPolicy: {broker: [{cidr: 10.0.0.0/8}]}", "Additional property cidr is not allowed"),
    ("topologySpread: {zones: Always}", "topologySpread.zones"),
    ("service: {opsPort: 70000}", "service.opsPort"),
    ("preStopSeconds: 5s", "preStopSeconds: Invalid type"),
    ("probes: {liveness: {exec: {command: [ls]}}}", "Additional property exec is not allowed"),
]
WRONG_TOGETHER = [  # refused by the templates
    ("image: {repository: ''}", "image.repository is empty"),
    ("config: {queue: {url: sqlite:notifier.db}}", "pods share a broker"),
    ("config: {queue: {url: 'amqp://notifier:secret@mq/'}}", "config.queue.url holds a password"),
    ("config: {queue: {url: ['amqp://a/', 'amqp://notifier:secret@b/']}}", "config.queue.url holds a password"),
    ("config: {queue: {password: secret}}", "put it into a Secret"),
    ("config: {log: {subject_key: secret}}", "config.log.subject_key_file"),
    ("config: {ops: {listen: '127.0.0.1:9464'}}", "config.ops.listen is 127.0.0.1:9464"),
    ("config: {api: {listen: 'localhost:8080', tokens_file: /t}}", "config.api.listen is localhost:8080"),
    ("config: {api: {}}", "config.api needs tokens_file"),
    ("ingress: {enabled: true, host: a.example.com}", "ingress.enabled needs config.api"),
    (
        "config: {log: {subject_key_file: /etc/notifier/secrets/log/key}}",
        '`secrets` has no member "log" (it has: broker, keys)',
    ),
    ("config: {registry: {file: /clients/clients.yaml}}", "clients and config.registry.file are both given"),
    ("terminationGracePeriodSeconds: 20", "give at least 25, or leave it 0"),
    ("{config: {shutdown_grace: 2m}, terminationGracePeriodSeconds: 60}", "give at least 125"),
    ("autoscaling: {kind: hpa, minReplicas: 5, maxReplicas: 3}", "maxReplicas is less"),
    ("autoscaling: {kind: keda}", "autoscaling.keda.managementSecret.name must name the Secret"),
]


@pytest.mark.parametrize(("values", "text"), [*WRONG_KIND, *WRONG_TOGETHER])
def test_a_wrong_value_is_refused(values: str, text: str, tmp_path: Path) -> None:
    """Laid over values that are right, each makes `helm` fail and say why."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(values)
    run = template(VALUES / "minimal.yaml", "-f", str(wrong))
    assert run.returncode != 0
    assert text in run.stderr
    assert "secret@" not in run.stderr


def test_nothing_configured_is_refused(tmp_path: Path) -> None:
    """A chart without any value says what it needs."""
    nothing = tmp_path / "nothing.yaml"
    nothing.write_text("{}")
    run = template(nothing)
    assert run.returncode != 0
    assert "config: queue is required" in run.stderr
    assert "config: issuers is required" in run.stderr
