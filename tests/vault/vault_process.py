"""Start a Vault in memory on the loopback interface, with the actions of its operator."""

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.processes import TIED
from tests.support.go_modules import GoMissing
from tests.vault.vault_program import VAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningVault:
    """A Vault, unsealed, with transit, AppRole and an operator's token."""

    address: str
    root: str = field(repr=False)
    unseal_key: str = field(repr=False)

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None, token: str = "") -> tuple[int, Any]:
        """Send one request, as the operator unless a token is given; return status and JSON."""
        request = urllib.request.Request(
            f"{self.address}/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": token or self.root},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                status, raw = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, raw = error.code, error.read()
        return status, json.loads(raw) if raw.strip() else None

    def do(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """Send one request that must succeed; return its JSON."""
        status, content = self.ask(method, path, body)
        assert status < 300, f"{method} {path}: {status} {content}"
        return content

    def key(self, name: str, kind: str = "rsa-2048") -> str:
        """Create a key, and return its name."""
        self.do("POST", f"transit/keys/{name}", {"type": kind})
        return name

    def allow(self, policy: str, key: str) -> str:
        """Write a policy that permits this key to sign, and return the policy's name."""
        rules = (
            f'path "transit/sign/{key}/*" {{ capabilities = ["update"] }}\n'
            f'path "transit/keys/{key}" {{ capabilities = ["read"] }}'
        )
        self.do("PUT", f"sys/policies/acl/{policy}", {"policy": rules})
        return policy

    def token(self, *policies: str, ttl: str = "1h", **further: object) -> str:
        """Create a token with these policies, and the one by which it can read and renew itself."""
        made = self.do("POST", "auth/token/create", {"policies": list(policies), "ttl": ttl, **further})
        return str(made["auth"]["client_token"])

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """Seal it, and unseal it afterwards."""
        self.do("PUT", "sys/seal")
        try:
            yield
        finally:
            self.unseal()

    def unseal(self) -> None:
        """Unseal it."""
        self.do("PUT", "sys/unseal", {"key": self.unseal_key})


@contextmanager
def running_vault(certificate: Path | None = None) -> Iterator[RunningVault]:
    """Run a new Vault with only the engine and the methods. `certificate`: a PEM file with its key; else no TLS.

    The test is skipped if Vault has not been built, unless NOTIFIER_TEST_SIGNERS=required.
    """
    try:
        program = VAULT.find()
    except GoMissing as missing:
        if os.environ.get("NOTIFIER_TEST_SIGNERS") == "required":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    files = [] if certificate is None else [str(certificate)] * 2
    with subprocess.Popen([*TIED, str(program), "127.0.0.1:0", *files], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = dict(word.split("=", 1) for word in process.stdout.readline().split())
            scheme = "http" if certificate is None else "https"
            found = RunningVault(
                address=f"{scheme}://{told['address']}", root=told["token"], unseal_key=told["unseal"]
            )  # fmt: skip
            if certificate is None:
                found.do("POST", "sys/mounts/transit", {"type": "transit"})
                for method in ("approle", "kubernetes"):
                    found.do("POST", f"sys/auth/{method}", {"type": method})
            yield found
        finally:
            process.kill()
