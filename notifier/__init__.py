"""notifier delivers OpenID Connect Back-Channel Logout notifications, durably and in isolation from each other.

`__version__` is RELEASE for builds of a tree without history, as a release is built. A checkout, and what is built from
one, has the commit too: `0.1.0+g1a2b3c4d`. The build writes it into the metadata of the distribution. Answers without a
token and requests to others have RELEASE only.
"""

import re
from importlib.metadata import distributions
from pathlib import Path

RELEASE = "0.1.0"
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def find_version(folder: Path) -> str:
    """Return the version of the package in `folder`: of its checkout, else of its distribution, else RELEASE.

    An editable installation has the metadata of its last build, so the checkout comes first.
    """
    if commit := _find_commit(folder / ".git"):
        return f"{RELEASE}+g{commit[:8]}"
    return next((each.version for each in distributions(name="logout-notifier", path=[str(folder)])), RELEASE)


def _find_commit(git: Path) -> str | None:
    """Return the commit that is checked out, from the files of git: it need not be installed. None if there is none."""
    try:
        if git.is_file():  # of a worktree: `gitdir: PATH`
            git = git.parent / git.read_text().removeprefix("gitdir:").strip()
        commit = (git / "HEAD").read_text().strip()
        if commit.startswith("ref:"):
            branch = commit.removeprefix("ref:").strip()
            shared = git / (git / "commondir").read_text().strip() if (git / "commondir").exists() else git
            if (shared / branch).exists():
                commit = (shared / branch).read_text().strip()
            else:
                lines = (shared / "packed-refs").read_text().splitlines()
                commit = next((line.split()[0] for line in lines if line.endswith(f" {branch}")), "")
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


__version__ = find_version(Path(__file__).parents[1])
