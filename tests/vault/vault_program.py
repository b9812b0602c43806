"""Vault with transit, AppRole and Kubernetes' tokens, built from its Go modules: 1.14, the last under the MPL.

It has 80 MB. The first time takes about five minutes on two cores, and 5 GB of Go's own caches.
"""

import shutil
from pathlib import Path

from tests.support.go_modules import GoProgram, got_module

VERSION = "1.14.1"
SDK = "github.com/hashicorp/vault/sdk"
MODULES = {  # of one day: with a later sdk this Vault does not compile, with an earlier one neither
    "github.com/hashicorp/vault": f"v{VERSION}",
    "github.com/hashicorp/vault-plugin-auth-kubernetes": "v0.16.0",
    "github.com/hashicorp/vault/api": "v1.9.2",
    SDK: "v0.9.2",
}
UNMET = "\t\tif p.ExistenceCheck == nil {", "\t\tif false {"
"""That sdk panics over one path of that Vault's own; a copy without the check is built instead."""


def _write_module(folder: Path) -> None:
    sdk = folder.with_name("sdk")
    shutil.copytree(got_module(f"{SDK}@{MODULES[SDK]}", "Dir"), sdk)
    _unlock(sdk)
    checked = sdk / "framework/backend.go"
    checked.write_text(checked.read_text().replace(*UNMET))
    needs = [f"require {name} {version}" for name, version in MODULES.items()]
    lines = ["module vault", "go 1.22", *needs, f"replace {SDK} => {sdk}", ""]
    (folder / "go.mod").write_text("\n".join(lines))


VAULT = GoProgram(
    name="vault", version=VERSION, source=Path(__file__).with_name("main.go"), part="vault", write_module=_write_module
)


def _unlock(folder: Path) -> None:
    """Make copies of Go's read-only cache writable and removable."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
