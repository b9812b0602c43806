"""A Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager and kube-scheduler.

They authenticate to each other by tokens. Nothing is kept when it ends.
"""

import asyncio
import contextlib
import json
import os
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.cluster.api import Api
from tests.cluster.processes import TIED
from tests.cluster.programs import Programs
from tests.support.rabbitmq_node import free_ports

ADMIN, NODES = "admin", "nodes"
CONTROLLERS, SCHEDULER = "system:kube-controller-manager", "system:kube-scheduler"
USERS = {ADMIN: "system:masters", NODES: "system:masters", CONTROLLERS: "", SCHEDULER: ""}
START_SECONDS = 120.0  # 10 s on an idle machine


class ControlPlane:
    """The four processes. Made by `control_plane`."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        self.folder = folder
        self.pki = folder / "pki"
        self._programs = programs
        self._etcd, self._peer, self._port, self._controllers, self._scheduler = free_ports(5)
        self.url = f"https://127.0.0.1:{self._port}"
        self._tokens = {user: secrets.token_hex(16) for user in USERS}
        self._running: dict[str, asyncio.subprocess.Process] = {}

    def kubeconfig(self, user: str = ADMIN) -> Path:
        """The file by which kubectl, helm and the parts themselves find the API."""
        return self.folder / f"kubeconfig-{user.rpartition(':')[2]}"

    def api(self, user: str = NODES) -> Api:
        """The API as this user."""
        trust = ssl.create_default_context(cafile=str(self.pki / "apiserver.crt"))
        return Api(self.url, self._tokens[user], trust)

    async def start(self) -> None:
        """Return once the API answers and its controllers work."""
        self._write_credentials()
        await self._start_etcd()
        await self._start_api_server()
        await self._until(self._has_certificate)
        async with self.api() as api:
            await self._until(api.ready)
            await self._start_controllers()
            await self._until(lambda: api.get("/api/v1/namespaces/default/serviceaccounts/default"))

    async def stop(self) -> None:
        """Kill them, the last one first."""
        for process in reversed(self._running.values()):
            if process.returncode is None:
                process.kill()
            await process.wait()

    def _write_credentials(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / "service-accounts.pem").write_bytes(pem)
        rows = [f'{self._tokens[user]},{user},{user},"{group}"\n' for user, group in USERS.items()]
        (self.folder / "tokens.csv").write_text("".join(rows))
        cluster = {"server": self.url, "certificate-authority": str(self.pki / "apiserver.crt")}
        for user in USERS:
            context = {"cluster": "local", "user": user, "namespace": "default"}
            config = {
                "apiVersion": "v1", "kind": "Config", "current-context": "local",
                "clusters": [{"name": "local", "cluster": cluster}],
                "users": [{"name": user, "user": {"token": self._tokens[user]}}],
                "contexts": [{"name": "local", "context": context}],
            }  # fmt: skip
            self.kubeconfig(user).write_text(json.dumps(config))  # JSON is YAML
            self.kubeconfig(user).chmod(0o600)

    async def _start(self, name: str, **options: object) -> None:
        words = [f"--{option.replace('_', '-')}={value}" for option, value in options.items()]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            self._running[name] = await asyncio.create_subprocess_exec(
                *TIED, str(self._programs[name]), *words, env=env, cwd="/", stdin=asyncio.subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    async def _start_etcd(self) -> None:
        here, peers = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        await self._start(
            "etcd", data_dir=self.folder / "etcd", listen_client_urls=here, advertise_client_urls=here,
            listen_peer_urls=peers, initial_advertise_peer_urls=peers, initial_cluster=f"default={peers}",
            unsafe_no_fsync="true", log_level="warn",
        )  # fmt: skip

    async def _start_api_server(self) -> None:
        key = self.folder / "service-accounts.pem"
        await self._start(
            "kube-apiserver", etcd_servers=f"http://127.0.0.1:{self._etcd}", bind_address="127.0.0.1",
            advertise_address="127.0.0.1", secure_port=self._port, cert_dir=self.pki, endpoint_reconciler_type="none",
            token_auth_file=self.folder / "tokens.csv", authorization_mode="RBAC", anonymous_auth="false",
            service_account_issuer="https://kubernetes.default.svc", service_account_key_file=key,
            service_account_signing_key_file=key, service_cluster_ip_range="10.96.0.0/16",
        )  # fmt: skip

    async def _start_controllers(self) -> None:
        common = {"leader_elect": "false", "bind_address": "127.0.0.1", "cert_dir": self.pki}
        await self._start(
            "kube-controller-manager", **common, kubeconfig=self.kubeconfig(CONTROLLERS), secure_port=self._controllers,
            use_service_account_credentials="true", root_ca_file=self.pki / "apiserver.crt",
            service_account_private_key_file=self.folder / "service-accounts.pem",
            node_monitor_grace_period="1h",  # the nodes report themselves once
            controllers="*,-nodeipam,-cloud-node-lifecycle",
        )  # fmt: skip
        await self._start(
            "kube-scheduler", **common, kubeconfig=self.kubeconfig(SCHEDULER), secure_port=self._scheduler
        )

    async def _has_certificate(self) -> bool:
        return (self.pki / "apiserver.crt").exists() and (self.pki / "apiserver.key").exists()

    async def _until(self, ask: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(START_SECONDS):
            while not await ask():
                for name, process in self._running.items():
                    if process.returncode is not None:
                        logged = (self.folder / f"{name}.log").read_text()[-1000:]
                        raise RuntimeError(f"{name} ended with {process.returncode}: {logged}")
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def control_plane(folder: Path, programs: Programs) -> AsyncIterator[ControlPlane]:
    """One that runs, with its files in `folder`."""
    made = ControlPlane(folder, programs)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
