"""A release of the chart on the cluster, made of the files of one installation (see tests.system.site)."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet

from notifier.model.client import Algorithm
from notifier.tokens.key_files import generate_key
from tests.cluster.commands import Commands, Done
from tests.system.site import Site
from tools.chart_rendering import CHART

SECRETS = "/etc/notifier/secrets"
KINDS = (
    "deployments,statefulsets,jobs,cronjobs,pods,services,configmaps,secrets,serviceaccounts,ingresses,networkpolicies,"
    "poddisruptionbudgets,horizontalpodautoscalers,persistentvolumeclaims"
)
OURS = ("broker", "keys", "api")  # the Secrets that a user makes
QUICK = {
    "startup": {"periodSeconds": 1}, "readiness": {"periodSeconds": 1}, "liveness": {"periodSeconds": 5}
}  # fmt: skip


def values(site: Site, clients: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """What a user would write: the configuration, with the names of Secrets where files of secrets are."""
    config = copy.deepcopy(site.config)
    url = urlsplit(str(config["queue"].pop("url")))
    config["queue"] |= {
        "url": f"amqp://localhost:{url.port}{url.path}", "username": url.username,
        "password_file": f"{SECRETS}/broker/password",
    }  # fmt: skip
    config["api"] = {"tokens_file": f"{SECRETS}/api/tokens.yaml"}
    config["web"] = {"keys_file": f"{SECRETS}/api/pages.keys"}
    for issuer in config["issuers"].values():
        issuer["keys"] = [{**key, "file": f"{SECRETS}/keys/{key['file']}"} for key in issuer["keys"]]
    for name in ("ops", "log", "registry"):
        del config[name]
    return {
        "image": {"repository": "registry.example.com/notifier"},
        "config": config, "clients": list(clients), "secrets": {name: f"notifier-{name}" for name in OURS},
        "canary": {"enabled": True, "keyFile": f"{SECRETS}/keys/canary.pem", "egress": ["127.0.0.0/8"]},
        "probes": QUICK, "preStopSeconds": 1,
    }  # fmt: skip


class Release:
    """`helm`: the program, helm3 or helm4."""

    def __init__(self, commands: Commands, helm: str, namespace: str, folder: Path, *, name: str = "notifier") -> None:
        self.commands = commands
        self.namespace = namespace
        self.name = name
        self.values: dict[str, Any] = {}
        self.program = helm
        self._file = folder / "values.yaml"

    async def make_secrets(self, site: Site) -> None:
        """Those that `values` names."""
        password = str(urlsplit(site.queue_url).password)
        (site.folder / "canary.pem").write_bytes(generate_key(Algorithm.RS256))
        keys = {path.name: path.read_text() for path in site.folder.glob("*.pem")}
        tokens = (site.folder / "tokens.yaml").read_text()
        pages = Fernet.generate_key().decode()
        await self.commands.make_secret(self.namespace, "notifier-broker", password=password)
        await self.commands.make_secret(self.namespace, "notifier-keys", **keys)
        await self.commands.make_secret(self.namespace, "notifier-api", **{"tokens.yaml": tokens, "pages.keys": pages})

    async def helm(self, *words: str | Path) -> Done:
        """Helm in the namespace of the release."""
        return await self.commands.run(self.program, *words, "--namespace", self.namespace)

    async def notifier(self, *words: str) -> Done:
        """`notifier`, in a pod of a worker."""
        name = (await self.deployment())["metadata"]["name"]
        return await self.commands.kubectl("-n", self.namespace, "exec", f"deploy/{name}", "--", "notifier", *words)

    async def install(self, *words: str) -> Done:
        """`helm install` with the values as they are now."""
        return await self._put("install", *words)

    async def upgrade(self, *words: str) -> Done:
        """`helm upgrade` likewise."""
        return await self._put("upgrade", *words)

    async def _put(self, verb: str, *words: str) -> Done:
        self._file.write_text(json.dumps(self.values))  # JSON is YAML
        return await self.helm(verb, self.name, CHART, "-f", self._file, *words)

    async def test(self) -> Done:
        """`helm test`, which prints what its pod has said."""
        return await self.helm("test", self.name, "--timeout", "3m")

    async def uninstall(self) -> Done:
        """`helm uninstall`."""
        return await self.helm("uninstall", self.name, "--wait")

    async def left(self) -> list[str]:
        """What is in the namespace besides what its user and Kubernetes put there."""
        theirs = {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default", *(f"Secret/notifier-{name}" for name in OURS)}
        found = await self.commands.get(self.namespace, KINDS)
        return sorted({f"{each['kind']}/{each['metadata']['name']}" for each in found} - theirs)

    async def deployment(self) -> dict[str, Any]:
        """The workers' Deployment."""
        [found] = [
            each
            for each in await self.commands.get(self.namespace, "deployments")
            if each["metadata"]["labels"]["app.kubernetes.io/instance"] == self.name
        ]
        return found
