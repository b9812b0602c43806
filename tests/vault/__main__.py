"""Run a local Vault until the process is stopped.

`python -m tests.vault` runs it, `… build` only builds it, and `… look` only checks whether it is built.
"""

import os
import sys

from tests.support.go_modules import GoMissing
from tests.vault.vault_program import VAULT


def main(what: str = "serve") -> None:
    """See the module."""
    try:
        program = VAULT.find() if what == "look" else VAULT.build()
    except GoMissing as missing:
        sys.exit(f"no Vault: {missing}")
    if what == "serve":
        os.execv(program, [str(program), "127.0.0.1:8200"])


if __name__ == "__main__":
    main(*sys.argv[1:])
