"""Test that the worker finds what `getent hosts` finds, with a pod's resolv.conf in a private network namespace."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.name_server import REFUSED, SERVFAIL, SILENCE
from tests.support.pod import PRIVATE

CLUSTER = "ns.svc.cluster.local svc.cluster.local cluster.local"
SERVICE, RP, FIXED = "10.96.0.7", "192.0.2.1", "192.0.2.7"
ZONES = {"shop.ns.svc.cluster.local": SERVICE, "rp.example.com": RP, "fixed.example.com": RP}
HOSTS = f"127.0.0.1 localhost\n{FIXED} fixed.example.com fixed\n"
FOUND = {
    "rp.example.com": [RP],
    "rp.example.com.": [RP],
    "shop": [SERVICE],
    "shop.ns": [SERVICE],
    "shop.ns.svc": [SERVICE],
    "shop.ns.svc.cluster.local": [SERVICE],
    "fixed.example.com": [FIXED],
    "fixed": [FIXED],
    "absent.example.com": [],
    "absent": [],
}


def looked_up(zones: dict[str, str | int], search: str, edns: int = 0) -> dict[str, dict[str, list[str]]]:
    """Return what was found in a pod. Skip the test where namespaces are not permitted."""
    if sys.platform != "linux" or subprocess.run([*PRIVATE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no private network namespace: a real resolv.conf with failing search domains is not tried here")
    resolv_conf = f"nameserver 127.0.0.1\nsearch {search}\noptions ndots:5 timeout:1 attempts:1\n"
    what: dict[str, Any] = {"zones": {**ZONES, **zones}, "edns": edns, "hosts": HOSTS, "names": list(FOUND)}
    run = subprocess.run(
        [*PRIVATE, sys.executable, "-m", "tests.support.pod", json.dumps({**what, "resolv.conf": resolv_conf})],
        cwd=Path(__file__).parents[3], capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr.decode()
    found: dict[str, dict[str, list[str]]] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("edns", [0, REFUSED, SILENCE])
def test_name_servers_may_refuse_edns(edns: int) -> None:
    """All names are still found, at the addresses that the system finds."""
    found = looked_up({}, CLUSTER, edns)
    assert found == {name: {"resolver": addresses, "getent": addresses} for name, addresses in FOUND.items()}


@pytest.mark.parametrize("code", [SERVFAIL, REFUSED])
@pytest.mark.parametrize("search", [f"{CLUSTER} corp.example", f"corp.example {CLUSTER}"])
def test_a_search_domain_may_fail(code: int, search: str) -> None:
    """At any place. What the system finds is found."""
    found = looked_up({"corp.example": code}, search)
    assert {name: each["resolver"] for name, each in found.items()} == FOUND
    assert {name: each["getent"] for name, each in found.items() if each["getent"]}.items() <= FOUND.items()
