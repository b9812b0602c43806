"""Build the servers of these tests. `python -m tests.relay build` does, `… look` only checks whether they are built."""

import sys

from tests.relay.dex_program import build_dex, find_dex
from tests.support.go_modules import GoMissing


def main(what: str = "look") -> None:
    """See the module."""
    try:
        build_dex() if what == "build" else find_dex()
    except GoMissing as missing:
        sys.exit(f"no Dex: {missing}")


if __name__ == "__main__":
    main(*sys.argv[1:])
