"""Vault with transit, AppRole and Kubernetes' tokens, built from its Go modules: 1.14, the last under the MPL.

It is cached in /var/cache/notifier-tests, or in the user's own cache if that is not writable:
80 MB. The first time takes about five minutes on two cores, and 5 GB of Go's own caches.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

from tests.support.go_modules import GoMissing, check_go, go_build, got_module, say
from tests.support.keycloak_installation import KeycloakMissing, cache
from tests.support.made_whole import alone

VERSION = "1.14.1"
SDK = "github.com/hashicorp/vault/sdk"
MODULES = {  # of one day: with a later sdk this Vault does not compile, with an earlier one neither
    "github.com/hashicorp/vault": f"v{VERSION}",
    "github.com/hashicorp/vault-plugin-auth-kubernetes": "v0.16.0",
    "github.com/hashicorp/vault/api": "v1.9.2",
    SDK: "v0.9.2",
}
SOURCE = Path(__file__).with_name("main.go")
UNMET = "\t\tif p.ExistenceCheck == nil {", "\t\tif false {"
"""That sdk panics over one path of that Vault's own; a copy without the check is built instead."""


def find_vault() -> Path:
    """Return the program, if it has been built. Raise GoMissing."""
    if (program := _place()).exists():
        return program
    raise GoMissing(f"Vault {VERSION} is not built yet in {program.parent}: `make test-everything PART=vault` does it")


def build_vault() -> Path:
    """Return the program, and build it if needed. Raise GoMissing."""
    program = _place()
    if not program.exists():
        check_go("Vault")
        with alone(program), tempfile.TemporaryDirectory(prefix="vault.", dir=program.parent) as work:
            if not program.exists():
                _build(program, Path(work))
    return program


def _place() -> Path:
    """Return the path, which depends on the version and the program's source."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    try:
        return cache() / f"vault-{VERSION}-{digest[:12]}"
    except KeycloakMissing as missing:
        raise GoMissing(str(missing)) from None


def _build(program: Path, work: Path) -> None:
    say(f"building Vault {VERSION} …")
    sdk, ours = work / "sdk", work / "vault"
    shutil.copytree(got_module(f"{SDK}@{MODULES[SDK]}", "Dir"), sdk)
    _unlock(sdk)
    checked = sdk / "framework/backend.go"
    checked.write_text(checked.read_text().replace(*UNMET))
    ours.mkdir()
    shutil.copy(SOURCE, ours)
    needs = [f"require {name} {version}" for name, version in MODULES.items()]
    lines = ["module vault", "go 1.22", *needs, f"replace {SDK} => {sdk}", ""]
    (ours / "go.mod").write_text("\n".join(lines))
    go_build(ours, ours / "made")
    for old in program.parent.glob("vault-*-*"):
        if not old.name.endswith(".lock"):
            old.unlink()
    (ours / "made").rename(program)


def _unlock(folder: Path) -> None:
    """Make copies of Go's read-only cache writable and removable."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
