"""The command line: one file per command group, arguments in, text out.

Exit codes: 0 done, 1 failed, 2 wrong use or configuration. stdout has the answer, stderr the log and the errors.
"""

from notifier.cli.application import main

__all__ = ["main"]
