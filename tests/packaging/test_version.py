"""Two builds are told apart by their versions: what is built from a checkout, or runs from one, has its commit."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from notifier import RELEASE, find_version
from tests.packaging.test_distribution_names import NAME, PARTS, ROOT
from tests.support.installing import run_installer

BACKEND = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
METADATA = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 0.1.0+gfeedf00d\n"


def git(folder: Path, *words: str) -> str:
    """Run git in this folder with an author, and return what it prints."""
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *author, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> tuple[Path, str]:
    """A checkout on a branch with a slash in its name, and the version that it has."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "ops/next")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "first")
    return folder, f"{RELEASE}+g{git(folder, 'rev-parse', 'HEAD')[:8]}"


def test_a_checkout_has_its_commit(checkout: tuple[Path, str]) -> None:
    """On a branch, with packed references, in a worktree, and without a branch. A second commit has another version."""
    folder, version = checkout
    assert find_version(folder) == version
    git(folder, "tag", "--annotate", "v9", "--message", "a peeled line in packed-refs")
    git(folder, "pack-refs", "--all")
    assert find_version(folder) == version
    git(folder, "worktree", "add", "--quiet", "-b", "other", "../worktree")
    assert find_version(folder.parent / "worktree") == version
    git(folder, "checkout", "--quiet", "--detach")
    assert find_version(folder) == version
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "second")
    assert RELEASE < find_version(folder) != version


@pytest.mark.parametrize("head", ["", "unknown", "ref: refs/heads/absent", "ref: ../../secret", "\0", "g" * 40])
def test_a_tree_without_a_commit_is_the_release(tmp_path: Path, head: str) -> None:
    """Without `.git`, with an empty `.git`, and with an unreadable `.git`."""
    assert find_version(tmp_path) == RELEASE
    (tmp_path / ".git").mkdir()
    assert find_version(tmp_path) == RELEASE
    (tmp_path / "secret").write_text("not a commit")
    (tmp_path / ".git/HEAD").write_text(head)
    assert find_version(tmp_path) == RELEASE
    shutil.rmtree(tmp_path / ".git")
    (tmp_path / ".git").write_bytes(b"\xff\xfe")
    assert find_version(tmp_path) == RELEASE


def test_an_installation_has_the_version_of_its_build(tmp_path: Path) -> None:
    """From the metadata beside it; an editable installation has the commit of its checkout instead."""
    metadata = tmp_path / "logout_notifier-0.1.0+gfeedf00d.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text(METADATA)
    assert find_version(tmp_path) == "0.1.0+gfeedf00d"
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_text(f"{'c0ffee00' * 5}\n")
    assert find_version(tmp_path) == f"{RELEASE}+gc0ffee00"


@pytest.mark.full
def test_wheel_and_sdist_of_a_checkout_have_its_commit(tmp_path: Path, checkout: tuple[Path, str]) -> None:
    """The wheel of that sdist too, which is built without history. The package that is installed says the same."""
    folder, version = checkout
    for part in PARTS[NAME]:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copyfile
        copy(ROOT / part, folder / part)
    wheels = (*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir")
    run_installer([sys.executable, "-c", BACKEND, tmp_path], cwd=folder)
    [sdist] = tmp_path.glob("*.tar.gz")
    for name, source in (("direct", folder), ("by_sdist", sdist)):
        run_installer([*wheels, tmp_path / name, source])
        [wheel] = (tmp_path / name).glob("*.whl")
        assert wheel.name == f"logout_notifier-{version}-py3-none-any.whl"
        target = tmp_path / f"{name}_site"
        run_installer([*PIP, "install", "--no-deps", "--no-index", "--target", target, wheel])
        installed = "import notifier; print(notifier.__version__)"
        assert run_installer([sys.executable, "-c", installed], cwd=target).strip() == version
