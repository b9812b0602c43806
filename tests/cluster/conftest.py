"""One cluster for all tests of this folder, and a namespace and an installation for each.

The tests are left out where the cluster cannot be had, unless NOTIFIER_TEST_CLUSTER=required.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.cluster.__main__ import found
from tests.cluster.commands import Commands
from tests.cluster.release import Release, values
from tests.faults.rig import CLIENTS, Rig, rig
from tests.support.go_modules import GoMissing
from tests.system.command import ROOT
from tests.system.loopback import LoopbackServer
from tests.system.site import API_TOKEN, client

HELMS = ("helm3", "helm4")


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """kubectl and Helm, with a cluster that they reach."""
    try:
        programs = found()
    except GoMissing as missing:
        if os.environ.get("NOTIFIER_TEST_CLUSTER") == "required":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    words = [sys.executable, "-m", "tests.cluster"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            path = process.stdout.readline().strip()
            assert path, "the cluster did not start; see above"
            yield Commands(programs, Path(path))
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.fixture(params=HELMS)
def helm(request: pytest.FixtureRequest) -> str:
    """Each Helm, one after the other."""
    name: str = request.param
    return name


@pytest.fixture
async def made(tmp_path: Path, amqp_url: str, prefix: str) -> AsyncIterator[Rig]:
    """Clients, and an identity server that publishes its keys, and events for them."""
    async with rig(tmp_path, amqp_url, prefix) as installation:
        site = installation.site

        async def keys(request: web.BaseRequest) -> web.Response:
            return web.json_response(site.jwks(request.query["iss"]))

        site.config["delivery"]["timeout"] = "30s"  # an attempt that times out may have arrived
        site.config["shutdown_grace"] = "30s"
        tokens = [{"name": "idp", "token": API_TOKEN, "scopes": ["publish", "read"]}]
        (site.folder / "tokens.yaml").write_text(json.dumps(tokens))
        async with LoopbackServer(keys) as server:
            for iss, issuer in site.config["issuers"].items():
                issuer["jwks_uri"] = f"{server.base}/jwks?iss={iss}"
            yield installation


@pytest.fixture
async def release(commands: Commands, helm: str, made: Rig, tmp_path: Path) -> AsyncIterator[Release]:
    """Not installed yet, in a namespace of its own, with its Secrets."""
    namespace = f"logout-{secrets.token_hex(3)}"
    await commands.make_namespace(namespace)
    release = Release(commands, helm, namespace, tmp_path)
    registrations = [client(name, f"http://127.0.0.1:{made.clients.port}/{name}") for name in CLIENTS]
    release.values = values(made.site, registrations)
    await release.make_secrets(made.site)
    yield release
    await commands.delete_namespace(namespace)
