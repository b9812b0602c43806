"""Build the servers of these tests. `python -m tests.relay build` does, `… look` only checks whether they are built."""

import sys

from tests.relay.dex_program import DEX
from tests.support.go_modules import GoMissing


def main(what: str = "look") -> None:
    """See the module."""
    try:
        DEX.build() if what == "build" else DEX.find()
    except GoMissing as missing:
        sys.exit(f"no Dex: {missing}")


if __name__ == "__main__":
    main(*sys.argv[1:])
