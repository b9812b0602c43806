"""The command line: one file a command group, arguments in, text out.

Exit codes: 0 done, 1 failed, 2 wrong use or configuration. stdout has the answer, stderr the log and the errors.
"""

from notifier.cli.application import main

__all__ = ["main"]
