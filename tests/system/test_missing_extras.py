"""An installation without extras: keys in places whose library is not there are refused, with what to install."""

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.system.site import ISSUER, Site

ROOT = Path(__file__).parents[2]
EXTRAS = {"pkcs11": "pkcs11", "aws_kms": "aws", "azure_key_vault": "azure", "google_kms": "google"}
WITHOUT = ("pkcs11", "aiobotocore", "azure", "google", "sqlalchemy")  # the packages that the extras bring
KEYS: Mapping[str, Mapping[str, object]] = {
    "pkcs11": {"module": "module.so", "token": "idp", "label": "k", "pin_file": "pin"},
    "aws_kms": {"key_id": "alias/k", "region": "eu-central-1"},
    "azure_key_vault": {"vault_url": "https://x.vault.azure.net", "key": "k", "version": "0" * 32},
    "google_kms": {"name": "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"},
    "vault": {"address": "https://v.example.com", "key": "k", "version": 1, "kubernetes": {"role": "r"}},
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All packages of this environment but those."""
    folder = tmp_path_factory.mktemp("packages")
    for package in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if package.name not in WITHOUT:
            (folder / package.name).symlink_to(package)
    return folder


@pytest.mark.full
def test_missing_library_is_named_with_its_install_command(tmp_path: Path, packages: Path) -> None:
    """Each key by its setting, before any place is asked, as `run` and a reload do. A key in Vault needs none."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
    for name in ("module.so", "pin"):
        (tmp_path / name).write_text("1234")
    site.config["issuers"][ISSUER]["keys"] += [{place: of} for place, of in KEYS.items()]
    site.write()
    words = [sys.executable, "-S", "-m", "notifier", "check", "--offline", "-c", str(site.file)]
    environ = {"PYTHONPATH": f"{ROOT}:{packages}"}
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    reported = [line.strip() for line in done.stderr.splitlines() if "library" in line]
    assert reported == [
        f'issuers["{ISSUER}"].keys[{nth}].{place}: its library is not installed: pip install '
        f"'logout-notifier[{extra}]' (the image has it)"
        for nth, (place, extra) in enumerate(EXTRAS.items(), start=1)
    ]


@pytest.mark.full
def test_missing_library_of_a_registry_source_is_named(tmp_path: Path, packages: Path) -> None:
    """By commands too, which report what each source lacks instead of ending with the first mistake."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
    database = {"url": f"sqlite:///{tmp_path}/a.db", "query": "SELECT 1"}
    site.config["registry"] = {"sources": [{"name": "db", "sql": database}]}
    site.write()
    words = [sys.executable, "-S", "-m", "notifier", "check", "-c", str(site.file)]
    environ = {"PYTHONPATH": f"{ROOT}:{packages}"}
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert "needs sqlalchemy: pip install 'logout-notifier[postgresql]'" in done.stdout + done.stderr
