"""Kubernetes' control plane, kubectl, Helm 3 and 4, built from their Go modules, and the CRDs that the chart refers to.

They are kept for the next run in /var/cache/notifier-tests, or in the user's own cache where that cannot be written:
0.5 GB. The first time takes about ten minutes on two cores, and 6 GB of Go's own caches.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.go_modules import GoMissing, check_go, go_build, got_module, say
from tests.support.keycloak_installation import KeycloakMissing, cache
from tests.support.made_whole import alone, made_whole

KUBERNETES, ETCD = "1.36.3", "3.6.8"
HELM = {"helm3": "3.22.0", "helm4": "4.3.1"}
LANGUAGE = "1.26.0"  # of Go, that Kubernetes is written in; Go 1.21 and newer get it by themselves
MONITORING = "monitoring.coreos.com"
CRDS = (  # module, folder, files
    (
        "github.com/kedacore/keda/v2@v2.21.0",
        "config/crd/bases",
        ("keda.sh_scaledobjects", "keda.sh_triggerauthentications"),
    ),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd",
        (f"{MONITORING}_podmonitors", f"{MONITORING}_servicemonitors", f"{MONITORING}_prometheusrules"),
    ),
    (
        "sigs.k8s.io/gateway-api@v1.4.0",
        "config/crd/standard",
        ("gateway.networking.k8s.io_httproutes",),
    ),
    (
        "github.com/external-secrets/external-secrets@v1.3.2",
        "config/crds/bases",
        ("external-secrets.io_externalsecrets",),
    ),
)
PARTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")


class ClusterMissing(GoMissing):
    """What a cluster is made of is not here, or cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One program: the package that it is built from, and what the linker is to write into it."""

    name: str
    version: str
    package: str
    stamps: Mapping[str, str]

    @property
    def file(self) -> str:
        """Its name in the cache: another version is another file."""
        return f"{self.name}-{self.version}"


@dataclass(frozen=True, slots=True)
class Programs:
    """Where they lie."""

    folder: Path

    def __getitem__(self, name: str) -> Path:
        """The path of one program, such as `kubectl`."""
        [wanted] = [each for each in WANTED if each.name == name]
        return self.folder / wanted.file

    @property
    def crds(self) -> Path:
        """The folder of the CRDs."""
        versions = "-".join(module.rpartition("@")[2] for module, _, _ in CRDS)
        return self.folder / f"crds-{versions}"

    def missing(self) -> list[str]:
        """Return the names of the programs to build."""
        found = [each.file for each in WANTED if not self[each.name].exists()]
        return found if self.crds.exists() else [*found, self.crds.name]


def _wanted() -> tuple[Wanted, ...]:
    minor = KUBERNETES.split(".")[1]
    version = {
        f"k8s.io/{package}.{name}": value
        for package in ("component-base/version", "client-go/pkg/version")
        for name, value in (("gitVersion", f"v{KUBERNETES}"), ("gitMajor", "1"), ("gitMinor", minor))
    }
    parts = [
        Wanted(name=part, version=KUBERNETES, package=f"k8s.io/kubernetes/cmd/{part}", stamps=version) for part in PARTS
    ]
    etcd = Wanted(name="etcd", version=ETCD, package="go.etcd.io/etcd/server/v3", stamps={})
    helms = [
        Wanted(
            name=name, version=number, package=f"helm.sh/helm/v{number[0]}/cmd/helm",
            stamps={
                f"helm.sh/helm/v{number[0]}/internal/version.version": f"v{number}",
                "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor": "1",  # what `helm template` takes the cluster for
                "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor": minor,
            },
        )
        for name, number in HELM.items()
    ]  # fmt: skip
    return (*parts, etcd, *helms)


WANTED = _wanted()


def find_programs() -> Programs:
    """Them, where all are there. Raises ClusterMissing."""
    programs = Programs(_place())
    if missing := programs.missing():
        way_out = "`make test-everything PART=cluster` does it"
        raise ClusterMissing(f"{', '.join(missing)} not built yet in {programs.folder}: {way_out}")
    return programs


def build_programs() -> Programs:
    """Them, built if need be. Raises ClusterMissing."""
    programs = Programs(_place())
    if programs.missing():
        check_go("Kubernetes")
        programs.folder.mkdir(parents=True, exist_ok=True)
        with alone(programs.folder), tempfile.TemporaryDirectory(prefix="modules.", dir=programs.folder) as work:
            for wanted in WANTED:
                if not programs[wanted.name].exists():
                    _build(wanted, programs[wanted.name], Path(work))
            if not programs.crds.exists():
                _copy_crds(programs.crds)
    return programs


def _place() -> Path:
    try:
        return cache() / "kubernetes"
    except KeycloakMissing as missing:
        raise ClusterMissing(str(missing)) from None


def _build(wanted: Wanted, path: Path, work: Path) -> None:
    say(f"building {wanted.name} {wanted.version} …")
    folder = _module(wanted, work)
    stamps = " ".join(f"-X {name}={value}" for name, value in wanted.stamps.items())
    made = folder / wanted.name
    go_build(folder, made, package=wanted.package, linked=stamps)
    for old in path.parent.glob(f"{wanted.name}-[0-9]*"):
        old.unlink()
    made.rename(path)


def _module(wanted: Wanted, work: Path) -> Path:
    """A module of ours that requires what it is built from. Kubernetes and etcd share one."""
    helm = wanted.name in HELM
    folder = work / (wanted.name if helm else "kubernetes")
    if not folder.exists():
        folder.mkdir()
        needs = [f"helm.sh/helm/v{wanted.version[0]} v{wanted.version}"] if helm else [
            f"k8s.io/kubernetes v{KUBERNETES}", f"go.etcd.io/etcd/server/v3 v{ETCD}"
        ]  # fmt: skip
        lines = ["module cluster", f"go {LANGUAGE}", *(f"require {each}" for each in needs)]
        (folder / "go.mod").write_text("\n".join([*lines, *([] if helm else _replacements()), ""]))
    return folder


def _replacements() -> list[str]:
    """Kubernetes publishes the folders of its repository as modules of version v0.MINOR.PATCH."""
    text = got_module(f"k8s.io/kubernetes@v{KUBERNETES}", "GoMod").read_text()
    names = re.findall(r"(k8s\.io/[a-z-]+) => \./staging", text)
    return [f"replace {name} => {name} v0.{KUBERNETES.partition('.')[2]}" for name in names]


def _copy_crds(place: Path) -> None:
    with made_whole(place) as folder:
        for module, under, names in CRDS:
            there = got_module(module, "Dir") / under
            for name in names:
                (folder / f"{name}.yaml").write_bytes((there / f"{name}.yaml").read_bytes())
