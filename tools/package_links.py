"""Makes a package's README readable where its repository is not: a registry's page, an unpacked archive.

python -m tools.package_links README FOLDER VERSION

FOLDER is where the README stands in the repository. Its relative links then lead to the repository at the tag of
VERSION, where CI provides it (GITHUB_SERVER_URL, GITHUB_REPOSITORY); elsewhere their text alone stays.
"""

import os
import posixpath
import re
import sys
from pathlib import Path

_CODE = r"^ *```.*?^ *```$|`[^`\n]+`(?!\])"
_LINK = re.compile(_CODE + r"|\[([^\]]+)\]\((?!https?://|#)([^)#]+)(#[^)]*)?\)", re.MULTILINE | re.DOTALL)


def led_away(text: str, folder: str, base: str | None) -> str:
    """The text with its relative links below `base`; without a base they are links no more."""

    def led(link: re.Match[str]) -> str:
        name, target, anchor = link.groups()
        if not name:
            return link[0]  # code
        return f"[{name}]({base}/{posixpath.normpath(posixpath.join(folder, target))}{anchor or ''})" if base else name

    return _LINK.sub(led, text)


def main() -> None:
    """Rewrite the README."""
    readme, folder, version = sys.argv[1:]
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    base = f"{server}/{repository}/blob/v{version}" if server and repository else None
    path = Path(readme)
    path.write_text(led_away(path.read_text(), folder, base))


if __name__ == "__main__":
    main()
