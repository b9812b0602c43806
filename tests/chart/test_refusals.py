"""Invalid values are refused at installation, all at once, instead of in a pod that does not start.

Each block is merged with valid values, in one run of `helm`; each text must be in its output.
"""

import re
from pathlib import Path

import pytest

from tools.chart_rendering import CHART, helm, template, values_file

WRONG_KIND = [  # refused by values.schema.json
    (
        """
        replicas: 3
        replicaCount: two
        config: {que: {}, issuers: {id.example.com: {keys: [{file: /k}]}}}
        externalSecrets: [{name: a, secretStoreRef: {name: vault}}]
        podSecurityContext: {runAsNonRoot: false}
        securityContext: {readOnlyRootFilesystem: false, privileged: true, capabilities: {add: [NET_ADMIN]}}
        autoscaling: {kind: both, minReplicas: 1, keda: {queues: [dead]}, scaleDownAfterSeconds: 5}
        networkPolicy: {clientPorts: [https], broker: [{cidr: 10.0.0.0/8}]}
        """,
        [
            "Additional property replicas is not allowed",
            "replicaCount: Invalid type",
            "config: Additional property que is not allowed",
            "Additional property id.example.com is not allowed",
            "data is required",
            "podSecurityContext.runAsNonRoot",
            "securityContext.readOnlyRootFilesystem",
            "securityContext.privileged",
            "Additional property add is not allowed",
            "autoscaling.kind",
            "autoscaling.minReplicas: Must be greater than or equal to 2",
            "Additional property queues is not allowed",
            "autoscaling.scaleDownAfterSeconds",
            "networkPolicy.clientPorts.0: Invalid type",
            "Additional property cidr is not allowed",
        ],
    ),
]
WRONG_TOGETHER = [  # refused by the templates
    (
        """
        config:
          delivery: {slot_wait: 2s}
          queue: {prefetch: {events: 9}}
          tracing: {endpoint: "http://c:4318"}
          registry: {sources: [{file: /c/c.yaml}, {wso2: {url: "https://is.example.com", username: reader}}]}
        env: [{name: NOTIFIER_TRACING__ENDPOINT, value: "http://c:4318"}]
        image: {repository: "registry.example.com/notifier:1.2", digest: sha256:abc}
        ingress: {host: "https://notifier.example.com"}
        canary: {clusterIP: None, keyFile: /etc/notifier/secrets/keys/, resources: {limits: {memory: 64Mi}}}
        collector: {enabled: false}
        resources: {limits: {memory: 512m, cpu: 200m}, requests: {cpu: 2 cores}}
        podDisruptionBudget: {maxUnavailable: half}
        """,
        [
            "config.delivery.slot_wait is gone: it is 1s now; remove it",
            "config.queue.prefetch.events is gone: it is 512 now; remove it",
            "config.registry.sources.1.wso2.username is gone: give headers: {Authorization: {file: PATH}}; remove it",
            "config.tracing is gone: the variable OTEL_EXPORTER_OTLP_ENDPOINT names the collector",
            "env has NOTIFIER_TRACING__ENDPOINT, but there is no such setting; it is gone: the variable OTEL_EXP",
            'image.repository is "registry.example.com/notifier:1.2"; it must be without a tag and a digest',
            'image.digest is "sha256:abc"; it must be sha256: and 64 hexadecimal digits',
            'ingress.host is "https://notifier.example.com"; it must be a host name, without https:// and path',
            'canary.clusterIP is "None"; it must be an address',
            'canary.keyFile is "/etc/notifier/secrets/keys/"; it must be the whole path of a file',
            "canary.resources.limits.memory is 64Mi, less than the 96Mi of its requests, and no pod would be made",
            "collector is gone with `notifier collect` and `notifier report`: docs/outcomes.md replaces them",
            'podDisruptionBudget.maxUnavailable is "half"; it must be a number from 1, or a share such as 25%',
            'resources.limits.memory is "512m"; it must be an amount with a unit, such as 512Mi',
            'resources.requests.cpu is "2 cores"; it must be a number of cores, such as 2 or 250m',
        ],
    ),
    (
        """
        image: {repository: ""}
        config:
          queue: {url: ["sqlite:notifier.db", "amqp://notifier:secret@b/"], password: secret}
          log: {subject_key: secret, subject_key_file: /etc/notifier/secrets/log/key}
          ops: {listen: "127.0.0.1:9464"}
          api: {listen: "localhost:8080"}
          registry: {file: /clients/clients.yaml}
          shutdown_grace: 2m
        terminationGracePeriodSeconds: 60
        ingress: {enabled: true, host: a.example.com}
        autoscaling: {kind: hpa, minReplicas: 5, maxReplicas: 3}
        resources: {requests: {cpu: null}}
        canary: {keyFile: /etc/notifier/secrets/keys/2026.pem, egress: null}
        """,
        [
            "image.repository is empty",
            'config.queue.url is "sqlite:notifier.db", but pods share a broker',
            "config or clients have password, which must not be in a ConfigMap",
            "its file as subject_key_file",
            "a URL in config or clients (config.queue.url, a proxy, a database) holds a password",
            "config.ops.listen is 127.0.0.1:9464",
            "config.api.listen is localhost:8080",
            "config.api needs tokens_file",
            '`secrets` has no member "log" (it has: broker, keys)',
            "clients and config.registry.file are both given",
            "terminationGracePeriodSeconds is 60, but",
            "give at least 130, or leave it 0",
            "ingress.tlsSecret is empty",
            "maxReplicas is less",
            "there is none: give one, such as 250m",
            "canary.keyFile is that of an issuer",
            "canary.egress and canary.clusterIP are empty",
            "canary.enabled and config.registry.file do not go together",
        ],
    ),
    (
        """
        config:
          queue: {url: "amqp://mq/logout"}
          issuers: {"https://staff.example.com": {keys: [{file: /etc/notifier/secrets/keys/b.pem}]}}
          registry: {defaults: {"https://staff.example.com": {egress: {allow_http: true}}}}
        clients:
          - {client_id: a, issuer: "https://id.example.com", backchannel_logout_uri: "ftp://a.example.com/"}
          - {client_id: b, issuer: "https://id.example.com", backchannel_logout_uri: "http://b.example.com/"}
          - {client_id: c, issuer: "https://staff.example.com", backchannel_logout_uri: "http://c.example.com/"}
          - {client_id: d, issuer: "https://id.example.com", backchannel_logout_uri: "http://d.example.com/",
             notifier: {egress: {allow_http: true}}}
          - {client_id: e, issuer: "*", backchannel_logout_url: "https://e.example.com/", client_name: E}
          - {client_id: e, issuer: ["https://id.example.com"], client_uri: "https://e.example.com/", x-team: a}
          - {client_id: f, backchanel_logout_uri: "https://f.example.com/"}
          - {client_id: g, issuer: "https://id.example.org", backchannel_logout_uri: "https://user:hidden@g.example.com/"}
          - {client_id: h, issuer: "https://id.example.com",
             notifier: {headers: {A: {file: /h}, Authorization: Bearer abc}, claims: {"api-key": "1"}}}
        env:
          - {name: NOTIFIER_QUEUE_PREFIX, value: sso}
          - {name: NOTIFIER_QUEUE__PASWORD, valueFrom: {secretKeyRef: {name: a, key: b}}}
          - {name: NOTIFIER_QUEUE__PASSWORD, value: secret}
          - {name: NOTIFIER_LOG__SUBJECT_KEY, valueFrom: {configMapKeyRef: {name: a, key: b}}}
          - {name: NOTIFIER_QUEUE__URL, value: "amqp://notifier:hidden@mq/"}
          - {name: NOTIFIER_LOG__LEVEL, value: debug}
          - {name: NOTIFIER_LOG__LEVEL, value: info}
          - {name: NOTIFIER_CONFIG, value: /x}
          - {name: NOTIFIER_FROM_NOWHERE, value: x}
          - {name: NOTIFIER_QUEUE, value: "{password: hidden}"}
          - {name: NOTIFIER_API__TLS__CERT_FILE, value: /etc/tls/tls.crt}
          - {name: TZ, value: UTC}
        service: {type: LoadBalancer}
        ingress: {enabled: true, host: a.example.com, tlsSecret: a}
        httpRoute: {enabled: true}
        autoscaling: {kind: keda, keda: {vhost: /}}
        """,
        [
            'clients.0 (a): backchannel_logout_uri is "ftp://a.example.com/", but must be an absolute URI',
            "clients.1 (b): backchannel_logout_uri is http; to allow it, set notifier.egress.allow_http",
            "clients.4: there is no member backchannel_logout_url; did you mean backchannel_logout_uri?",
            "clients.5: client_id e is registered at https://id.example.com already, by clients.4",
            "clients.6 (f): issuer is required, since there are 2 issuers",
            "clients.6: there is no member backchanel_logout_uri; did you mean",
            "clients.7 (g): issuer https://id.example.org is not among config.issuers",
            "`headers` in config or clients holds a secret",
            "env has NOTIFIER_QUEUE_PREFIX, but there is no such setting; did you mean NOTIFIER_QUEUE__PREFIX?",
            "env has NOTIFIER_QUEUE__PASWORD, but there is no such setting; did you mean NOTIFIER_QUEUE__PASSWORD?",
            "env has NOTIFIER_QUEUE__PASSWORD with a secret in clear",
            "env has NOTIFIER_LOG__SUBJECT_KEY with a secret in clear",
            "env has NOTIFIER_QUEUE__URL with a secret in clear",
            "env has NOTIFIER_QUEUE with a secret in clear",
            "env has NOTIFIER_LOG__LEVEL twice",
            "env has NOTIFIER_CONFIG which the chart sets",
            "`notifier schema config` lists the settings",
            "a URL in config or clients",
            "and 5 more",
        ],
    ),
    (
        """
        service: {type: LoadBalancer}
        ingress: {enabled: true, host: a.example.com, tlsSecret: a}
        httpRoute: {enabled: true}
        config: {queue: {url: "amqp://mq/logout"}}
        autoscaling: {kind: keda, keda: {vhost: /}}
        canary: {keyFile: ""}
        podLabels: {app.kubernetes.io/name: a, app.kubernetes.io/part-of: b}
        commonLabels: {app.kubernetes.io/component: a, app.kubernetes.io/part-of: b}
        podSpecExtra: {containers: [], serviceAccount: a, dnsPolicy: Default}
        """,
        [
            "ingress.enabled needs config.api",
            "httpRoute.enabled needs config.api",
            "service.type LoadBalancer needs config.api",
            "httpRoute.parentRefs is empty",
            "autoscaling.keda.managementSecret.name must name the Secret",
            'autoscaling.keda.vhost is "/", but the queues are in "logout"',
            "canary.keyFile is empty",
            "podLabels has app.kubernetes.io/name, by which the chart finds its pods",
            "commonLabels has app.kubernetes.io/component, which the chart sets",
            "podSpecExtra has containers, which the chart sets from other values",
            "podSpecExtra has serviceAccount, which the chart sets from other values",
        ],
    ),
    (
        """
        replicaCount: 2
        spool: {claim: notifier-spool}
        """,
        ["spool.claim is ReadWriteOnce, and pods on other nodes", "no effect without config.spool.folder"],
    ),
    (
        """
        replicaCount: 1
        autoscaling: {kind: hpa}
        spool: {claim: notifier-spool}
        config: {spool: {folder: spool}}
        """,
        [
            "spool.claim is ReadWriteOnce, and pods on other nodes",
            'config.spool.folder is "spool"; give an absolute path',
        ],
    ),
    (
        """
        relayRoute: {enabled: true}
        config: {relays: {dex: {jwks_uri: "https://dex.example.com/keys"}}}
        """,
        [
            "relayRoute.parentRefs is empty",
            "relayRoute.enabled needs config.relays and config.web",
            'relayRoute needs config.issuers["https://id.example.com"].jwks_uri',
        ],
    ),
    (
        "podSpecExtra: {hostNetwork: true, hostPID: true, hostIPC: true, shareProcessNamespace: true}",
        [
            "podSpecExtra has hostNetwork, with which no NetworkPolicy applies to the pods: leave it out",
            "podSpecExtra has hostPID, which shows them the processes of the node",
            "podSpecExtra has hostIPC, which shows",
            "podSpecExtra has shareProcessNamespace, with which containers beside the worker can read its keys",
        ],
    ),
    (
        """
        config:
          queue: {url: "amqp://notifier@rabbitmq.rabbitmq.svc:port/"}
          ops: {listen: "0.0.0.0:8080"}
          api:
            tokens_file: tokens.yaml
            console: {oidc: {issuer: "https://a", client_id: c, audience: a, scopes_claim: g, map: {sre: [read]}}}
          web: {listen: "localhost:9464", keys_file: keys}
          issuers:
            "https://id.example.com":
              keys: [{file: 2026.pem}, {vault: {address: "https://v", key: a, version: 1, kubernetes: {role: a}}}]
          egress: {allow: [10.0.0.1/8, 10.0.0.0/8, 192.168.1.16/28, "fd00::/8"], deny: [10.1.2.3]}
        canary: {egress: [10.96.0.1/12]}
        env:
          - {name: NOTIFIER_OPS__LISTEN, value: "0.0.0.0:9000"}
          - {name: NOTIFIER_SHUTDOWN_GRACE, value: 5m}
          - {name: NOTIFIER_LOG__LEVEL, value: debug}
        strategy: {rollingUpdate: {maxSurge: 0%, maxUnavailable: 0}}
        """,
        [
            'config.queue.url is "amqp://…@rabbitmq.rabbitmq.svc:port/", but pods share a broker',
            "has that port already: give another",
            "config.web.listen is localhost:9464, which nothing outside of the pod reaches",
            "config.api.console.oidc is for a console that is served",
            "name the file tokens.yaml, which would be looked for in the ConfigMap: give its whole path",
            "name the file 2026.pem, which",
            'config.issuers["https://id.example.com"].keys[1].vault.kubernetes needs token_file',
            "have the network 10.0.0.1/8, whose address goes on behind the /8",
            "have the network 10.96.0.1/12, whose",
            "env has NOTIFIER_OPS__LISTEN, but the chart derives ports",
            "env has NOTIFIER_SHUTDOWN_GRACE, but",
            "maxSurge and maxUnavailable 0, so that no worker could be replaced",
            "the values have mistakes:\n- ",
        ],
    ),
]


def refused(values: str, folder: Path) -> str:
    """Return the output of `helm` for these, merged with valid values."""
    wrong = folder / "wrong.yaml"
    wrong.write_text(values)
    run = template(values_file("minimal"), "-f", str(wrong))
    assert run.returncode != 0
    return run.stderr


@pytest.mark.parametrize(("values", "texts"), [*WRONG_KIND, *WRONG_TOGETHER])
def test_wrong_values_are_refused(values: str, texts: list[str], tmp_path: Path) -> None:
    """Each of them makes `helm` fail with a reason, and without a secret."""
    output = refused(values, tmp_path)
    assert [text for text in texts if text not in output] == [], output
    assert not re.search(r"secret@|hidden|Bearer abc", output)


def test_a_release_whose_name_has_a_dot_is_refused() -> None:
    """No Service can be named after it; a name given apart from it will do."""
    release = "my.release"
    run = template(values_file("minimal"), release=release)
    assert "the name of a Service has no dot: set fullnameOverride" in run.stderr
    assert template(values_file("minimal"), "--set", "fullnameOverride=logout", release=release).returncode == 0


def test_nothing_configured_is_refused(tmp_path: Path) -> None:
    """The error lists the required values."""
    nothing = tmp_path / "nothing.yaml"
    nothing.write_text("{}")
    run = template(nothing)
    assert run.returncode != 0
    assert "image.repository is empty" in run.stderr
    assert "config.queue.url is missing" in run.stderr
    assert "config.issuers is missing" in run.stderr
    assert helm("lint", CHART).returncode == 0  # as tools run it that know no values


def clients_file(folder: Path, count: int) -> Path:
    """A file with so many clients, of 150 bytes each."""
    file = folder / f"{count}.yaml"
    rows = (
        f"  - {{client_id: client-{n:05}, client_name: The client of department {n:05}, issuer: https://id.example.com,"
        f" backchannel_logout_uri: https://client-{n:05}.apps.example.com/backchannel-logout}}\n"
        for n in range(count)
    )
    file.write_text("clients:\n" + "".join(rows))
    return file


def test_too_many_clients_for_a_configmap_are_refused_at_once(tmp_path: Path) -> None:
    """8,000 would be refused by the API server, after Helm has recorded a release; the text has the remedy."""
    run = template(values_file("minimal"), "-f", str(clients_file(tmp_path, 8_000)))
    assert "KiB, and Kubernetes takes 1024 at most (8000 clients)" in run.stderr
    assert "config.registry.file" in run.stderr
    assert "config.registry.sources" in run.stderr
