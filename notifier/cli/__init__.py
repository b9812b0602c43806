"""The command line: one file a command group, arguments in, text out.

Exit codes: 0 done, 1 failed, 2 wrong use or configuration. stdout is the answer, stderr the log and what went wrong.
"""

from notifier.cli.application import main

__all__ = ["main"]
